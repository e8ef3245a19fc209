"""What a job's events add up to: phase, progress, speed, time left, latest figures.

Pure arithmetic over events; the page, the terminal and the model card all read a run through it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from studio import events
from studio.events import Event

WINDOW = 30
"""Steps over which speed is averaged: long enough to be calm, short enough to follow."""


@dataclass(frozen=True)
class Summary:
    """A view of one job's events. Every figure is None while it is not known."""

    said: list[Event]

    @cached_property
    def phase(self) -> str | None:
        entered = events.last(self.said, events.Entered)
        return entered.phase if entered else None

    @cached_property
    def phases_seen(self) -> set[str]:
        return {event.phase for event in self.said if isinstance(event, events.Entered)}

    @cached_property
    def progress(self) -> events.Progressed | None:
        """The present phase's progress, or None when it has said none."""
        for event in reversed(self.said):
            if isinstance(event, events.Progressed):
                return event
            if isinstance(event, events.Entered):
                return None
        return None

    @cached_property
    def plan(self) -> events.Planned | None:
        return events.last(self.said, events.Planned)

    @cached_property
    def steps(self) -> list[events.Stepped]:
        """Every step once."""
        return self._by_step(events.Stepped)

    @property
    def step(self) -> int:
        return self.steps[-1].step if self.steps else 0

    @property
    def chosen_step(self) -> int | None:
        """The step whose weights the held-out pairs have chosen, where that is not the last one: it is saved after that."""
        saved = [event.step for event in self.said if isinstance(event, events.Saved)]
        return saved[-1] if len(saved) > 1 and saved[-1] < saved[-2] else None

    @cached_property
    def metrics(self) -> dict[str, float | None]:
        return self.steps[-1].metrics if self.steps else {}

    @property
    def memory(self) -> int | None:
        """The most memory the worker has held, in bytes."""
        return self.steps[-1].memory if self.steps else None

    @cached_property
    def seconds_a_step(self) -> float | None:
        resumed = events.last(self.said, events.Resumed)
        recent = [step for step in self.steps[-WINDOW:] if resumed is None or step.step > resumed.step]
        if len(recent) < 2 or recent[-1].step == recent[0].step:
            return None
        return max(recent[-1].at - recent[0].at, 1e-6) / (recent[-1].step - recent[0].step)

    @property
    def seconds_left(self) -> float | None:
        """Time the remaining steps take at the present speed; measuring and saving come on top."""
        if self.plan is None or self.seconds_a_step is None:
            return None
        return max(0, self.plan.steps - self.step) * self.seconds_a_step

    @property
    def seconds_taken(self) -> float | None:
        """From the worker's start to its last word so far."""
        started = events.last(self.said, events.Started)
        return max(0.0, self.said[-1].at - started.at) if started else None

    @cached_property
    def looks(self) -> list[events.Evaluated]:
        """Every measurement of tuned once, by step; not the second look at a step whose weights were kept."""
        taken: list[events.Evaluated] = []
        for event in charted(self.said):
            if isinstance(event, events.Evaluated) and event.model == "tuned":
                taken = [*(each for each in taken if each.step < event.step), event]
        return taken

    def measured(self, model: str) -> events.Evaluated | None:
        """The last measurement of the held-out pairs with "base" or "tuned"."""
        return next((event for event in reversed(self.said) if isinstance(event, events.Evaluated) and event.model == model), None)

    def held_out(self, model: str) -> dict[str, float | None] | None:
        """The metrics of that measurement."""
        found = self.measured(model)
        return found.metrics if found else None

    @cached_property
    def sampled(self) -> list[events.Sampled]:
        """Every sample once."""
        return self._by_step(events.Sampled)

    @cached_property
    def samples(self) -> list[events.Sampled]:
        """The latest answers to each of the fixed prompts."""
        return list({sample.prompt: sample for sample in self.sampled}.values())

    @cached_property
    def notes(self) -> list[str]:
        return [event.text for event in self.said if isinstance(event, events.Noted)]

    @cached_property
    def repairs(self) -> list[events.Repaired]:
        return [event for event in self.said if isinstance(event, events.Repaired)]

    @property
    def failure(self) -> str | None:
        failed = events.last(self.said, events.Failed)
        return failed.reason if failed else None

    @cached_property
    def device(self) -> str | None:
        started = events.last(self.said, events.Started)
        return started.device if started else None

    def _by_step(self, kind: type[events.Stepped] | type[events.Sampled]) -> list:
        """The events of a kind; of steps that a resumed run took again those that it took last."""
        taken = []
        for event in self.said:
            if isinstance(event, kind):
                taken.append(event)
            elif isinstance(event, events.Resumed):
                taken = [each for each in taken if each.step <= event.step]
        return taken


def points(said: list[Event], have: int = 0) -> dict:
    """The rows of the charts from index `have` on, and how many there are in all."""
    rows = [row(event) for event in charted(said)]
    return {"rows": rows[max(0, have):], "total": len(rows)}


def count_points(said: list[Event]) -> int:
    """How many rows the charts have, without building them."""
    return sum(1 for _ in charted(said))


def charted(said: list[Event]) -> Iterator[events.Stepped | events.Evaluated]:
    """What the charts show. Not a second look at an earlier step, whose weights a run has kept: there is a point already."""
    step = 0
    for event in said:
        if isinstance(event, events.Stepped | events.Resumed):
            step = event.step
        if isinstance(event, events.Stepped) or (isinstance(event, events.Evaluated) and event.step >= step):
            yield event


def row(event: events.Stepped | events.Evaluated) -> dict:
    """One row of the charts: its step, train or eval, and the metrics."""
    split = "train" if isinstance(event, events.Stepped) else "eval"
    return {"step": event.step, "split": split, "metrics": event.metrics}


def duration(seconds: float | None) -> str:
    """Seconds for the eye: "8 s", "3 min 20 s", "2 h 05 min", or "–" while unknown."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(number: float | None) -> str:
    """Bytes for the eye: "840 MB", "7.9 GB"."""
    if not number:
        return "–"
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"


def span(ends: tuple[float, float]) -> str:
    """The ends of an interval of shares for the eye: "88.6 to 95.8 %"."""
    return f"{100 * ends[0]:.1f} to {percent(ends[1])}"


def percent(share: float | None) -> str:
    """A share for the eye: "98.5 %"."""
    return "–" if share is None else f"{100 * share:.1f} %"


def in_words(progress: events.Progressed) -> str:
    """Progress for the eye: bytes as sizes, everything else as counts."""
    if progress.unit == "bytes":
        return f"{size(progress.done)} of {size(progress.total)}"
    return f"{progress.done:,} of {progress.total:,} {progress.unit}"
