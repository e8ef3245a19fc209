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


SURE, ENOUGH_STEPS, EARLY = 0.05, 5, (0.75, 1.5)
"""Until this share of a run and so many of its steps are done, the time left is told as a range: so far below and above."""


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
        """Of the recent steps by themselves: what was measured between two of them is not part of either."""
        recent = self._step_seconds[-WINDOW:]
        return max(sum(recent) / len(recent), 1e-6) if recent else None

    @cached_property
    def _step_seconds(self) -> list[float]:
        """How long each step took since the run last began or resumed, but for the first, which warms up."""
        found, since = [], None
        for event in self.said:
            if isinstance(event, events.Started | events.Resumed):
                found, since = [], None
            elif isinstance(event, events.Stepped):
                found += [event.at - since] if since is not None else []
                since = event.at
            elif isinstance(event, events.Entered) and event.phase == "training" and since is not None:
                since = event.at  # after a measurement
        return [max(0.0, seconds) for seconds in found]

    @cached_property
    def seconds_a_look(self) -> float | None:
        """Of the last look at the held-out pairs and prompts that has ended."""
        found, entered = None, None
        for event in self.said:
            if isinstance(event, events.Entered):
                found = event.at - entered if entered is not None and event.phase != "evaluating" else found
                entered = event.at if event.phase == "evaluating" and entered is None else entered if event.phase == "evaluating" else None
        return None if found is None else max(0.0, found)

    @property
    def seconds_left(self) -> float | None:
        """Time that the remaining steps and the looks between and after them take at the present speed; None while it is not known."""
        if self.plan is None or (self.seconds_a_step is None and self.step < self.plan.steps):
            return None
        every, steps, look = self.plan.measure_every, self.plan.steps, self.seconds_a_look or 0.0
        looks = max(0, (steps - 1) // every - self.step // every) + 1 if every else 0  # those between steps, and the one after the last
        left = max(0, steps - self.step) * (self.seconds_a_step or 0.0) + looks * look
        if self.phase == "evaluating" and self.step:
            # A look in the middle was due at the step that was just taken, and is not among those that are to come.
            left += self._of_this_look(look) - (look if self.step >= steps else 0.0)
        return max(0.0, left)

    def _of_this_look(self, whole: float) -> float:
        """Seconds that are left of a look that has begun."""
        begun = next((event.at for event in reversed(self.said) if isinstance(event, events.Entered)), self.said[-1].at)
        gone, progress = max(0.0, self.said[-1].at - begun), self.progress
        measuring = gone * (progress.total - progress.done) / progress.done if progress and progress.done else 0.0
        return max(whole - gone, measuring)

    @property
    def left_in_words(self) -> str:
        """The time left for the eye: as a range while little of the run is known, a moment at its very end."""
        left = self.seconds_left
        if left is None:
            return "–"
        if left < 1:
            return "a moment"
        known = self.plan is not None and self.step >= SURE * self.plan.steps and len(self._step_seconds) >= ENOUGH_STEPS
        return duration(left) if known else between(left * EARLY[0], left * EARLY[1])

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


def between(low: float, high: float) -> str:
    """A range of seconds for the eye: "12 to 40 min"; one figure where both ends look alike."""
    units = (("days", 86400, 2), ("h", 3600, 2), ("min", 60, 2), ("s", 1, 0))
    unit, seconds = next((unit, seconds) for unit, seconds, least in units if high >= least * seconds)
    ends = [f"{end / seconds:.1f}".removesuffix(".0") if end / seconds < 3 else f"{end / seconds:.0f}" for end in (low, high)]
    return f"{ends[0]} to {ends[1]} {unit}" if ends[0] != ends[1] else f"{ends[0]} {unit}"


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
