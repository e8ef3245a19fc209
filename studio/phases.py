"""The phases of a run as a person sees them: which are done, which one is at work, and at which one it ended.

A phase is done when the run has gone on from it, or has finished. What the worker calls evaluating is three things: measuring
the base before training, a look between steps, which is part of training, and measuring at the end.
"""

from dataclasses import dataclass
from typing import Literal

from studio import events
from studio.events import Event
from studio.jobs import ALIVE, Status

BASE = "measuring the base"
NAMES = ("downloading", "tokenizing", "loading", BASE, "training", "saving", "evaluating")
ENDS: dict[str, Literal["failed", "stopped"]] = {"failed": "failed", "crashed": "failed", "stopped": "stopped"}


@dataclass(frozen=True)
class Phases:
    """Where a run stands: the phase at work, those done, and the one at which it failed or was stopped."""

    current: str | None = None
    done: frozenset[str] = frozenset()
    ended_at: str | None = None
    how: str = ""


def of_run(said: list[Event], status: Status) -> Phases:
    """The phases of a run's last attempt."""
    begun = max((place for place, event in enumerate(said) if isinstance(event, events.Started)), default=0)
    attempt = said[begun:]
    entered = _entered(attempt)
    if not entered:
        return Phases()
    if status == "finished":
        return Phases(done=frozenset(entered))
    *before, last = entered
    done = {name for name in before if name != last}
    if status in ALIVE:
        return Phases(last, frozenset(done))
    if status == "stopped" and last == "saving" and events.last(attempt, events.Saved):
        return Phases(done=frozenset(done - {"training"} | {"saving"}), ended_at="training", how="stopped")
    return Phases(done=frozenset(done), ended_at=last, how=ENDS.get(status, ""))


def _entered(attempt: list[Event]) -> list[str]:
    """The phases in the order in which they were first entered, the present one last."""
    entered: list[str] = []
    trains, saves = False, False
    for event in attempt:
        if isinstance(event, events.Entered):
            trains, saves = trains or event.phase == "training", saves or event.phase == "saving"
            name = event.phase if event.phase != "evaluating" or saves else "training" if trains else BASE
            if name == "saving" and "evaluating" in entered:  # the best measurement's weights, after the end was measured
                name = "evaluating"
            if not entered or entered[-1] != name:
                entered.append(name)
    return entered
