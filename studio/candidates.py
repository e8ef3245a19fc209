"""Who can answer in Compare: the base, what a run learned, or what it had learned by the step of a checkpoint."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from studio import about, events, names
from studio.errors import StudioError
from studio.events import Event
from studio.runs import Run

MOST = 60
"""Candidates offered."""
LAST = "last"
_KEY = re.compile(rf"({names.RUN.pattern})@(\d{{1,12}}|{LAST})", re.ASCII)


@dataclass(frozen=True)
class Candidate:
    """The base where there is no run; a run as it is now where there is no step; else the run after that optimizer step."""

    run: str = ""
    step: int | None = None

    def __str__(self) -> str:
        """As it is written in a vote, in a form, and on the line to the chat."""
        return f"{self.run}@{LAST if self.step is None else self.step}" if self.run else "base"

    @classmethod
    def parse(cls, text: object) -> "Candidate":
        """The candidate that is written so. Raises StudioError for what is none."""
        if text == "base":
            return cls()
        if not isinstance(text, str) or not (found := _KEY.fullmatch(text)):
            raise StudioError(f"{str(text)[:80]!r} is nobody who could answer. Choose both who are compared from their lists.")
        return cls(found[1], None if found[2] == LAST else int(found[2]))

    def at(self, said: list[Event]) -> "Candidate":
        """The same with the step that a run's adapter has now, by which votes on it are known; `said` is that run's log."""
        saved = events.last(said, events.Saved) if self.run and self.step is None else None
        return Candidate(self.run, saved.step) if saved else self


BASE = Candidate()
Pair = tuple[Candidate, Candidate]


def offered(run: Run, others: Iterable[Run]) -> list[Candidate]:
    """Who can answer beside that run: the base, the run with its checkpoints, and so every one of the others that has the same base.

    Of the others those that say the same of their base; whether it truly is the same is seen when it is loaded.
    """
    if not run.adapter.is_dir():
        return []
    base = _base(run)
    alike = (other for other in others if other.name != run.name and other.adapter.is_dir() and _base(other) == base is not None)
    found = (candidate for each in (run, *islice(alike, MOST))
             for candidate in (Candidate(each.name), *(Candidate(each.name, step) for step in reversed(each.checkpointed))))
    return [BASE, *islice(found, MOST)]


def is_there(candidate: Candidate, run: Run) -> bool:
    """Whether a candidate beside that run has what it answers with: an adapter, and where a step is named its checkpoint."""
    if not candidate.run:
        return True
    other = Run(run.folder.parent / candidate.run)
    return other.adapter.is_dir() and (candidate.step is None or candidate.step in other.checkpointed)


def _base(run: Run) -> dict | None:
    """What has to be the same for two adapters to stand on one loaded base; None where it cannot be read."""
    try:
        return run.settings.model.model_dump(exclude={"revision", "device"})
    except StudioError:  # of another version
        return None


def name(candidate: Candidate, run: Run) -> str:
    """What a candidate is called beside the run in view, in a few words."""
    if not candidate.run:
        return "Base"
    if candidate.run == run.name:
        return "Tuned" if candidate.step is None else f"Step {candidate.step:,}"
    other = Run(run.folder.parent / candidate.run)
    called = about.of(other).title or other.name
    return called if candidate.step is None else f"{called}, step {candidate.step:,}"


def in_list(candidate: Candidate, run: Run) -> str:
    """What stands for it in a list, where there is room."""
    if not candidate.run:
        return "Base, as it was before training"
    if candidate.run == run.name:
        return "Tuned, the run in view" if candidate.step is None else f"{name(candidate, run)} of the run in view"
    called = about.label(Run(run.folder.parent / candidate.run))
    return called if candidate.step is None else f"{called}, step {candidate.step:,}"
