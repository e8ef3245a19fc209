"""Whether a run would take longer on this machine than anybody wants to wait, which is asked once before it begins."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from studio import events, pace, plan, two_steps
from studio.gpu import Place
from studio.settings import Settings
from studio.shape import Shape
from studio.summary import duration

LONG_ON_CPU, LONG = 3 * 3600, 48 * 3600
"""Seconds beyond which a person is asked: on a CPU, where a GPU would take minutes, and anywhere."""


@dataclass(frozen=True)
class Wait:
    """How long a run is expected to compute on this machine, in seconds, and whether that was measured."""

    seconds: float
    on_cpu: bool
    measured: bool

    @property
    def is_long(self) -> bool:
        """Whether to ask before the run begins."""
        return self.seconds > (LONG_ON_CPU if self.on_cpu else LONG)

    def in_words(self) -> str:
        """The question, with what could be done instead."""
        how = "as two tried steps say" if self.measured else "by a rough estimate"
        less = ("A GPU would do it in a fraction of that: see the Spaces above. Or choose a smaller model, fewer rows or fewer epochs."
                if self.on_cpu else "Fewer rows, fewer epochs or a smaller model take less.")
        return f"This run would take about {duration(self.seconds)} on this machine, {how}. {less}"


def expected(root: Path, settings: Settings, shape: Shape, place: Place, read: Callable[[Path], list[events.Event]]) -> Wait | None:
    """The wait for a run on this machine; None where nothing is known of its speed.

    Of data whose size is not known it is that for 1,000 pairs.
    """
    on_cpu, trial = place.kind == "cpu", two_steps.trial(root)
    if trial.speaks_of(settings) and not trial.at_work and trial.outcome:
        return Wait(two_steps.seconds_for_all(trial.outcome, settings), on_cpu, measured=True)
    of, tflops = pace.size_of(root, settings), pace.here_tflops(place)
    earlier = pace.earlier_seconds(root, settings, place.name, read)
    if earlier is not None:
        return Wait(earlier * plan.pairs_seen(settings.training, of.pairs or 1000), on_cpu, measured=False)
    return Wait(pace.rough_seconds(settings, shape, tflops, of), on_cpu, measured=False) if tflops is not None else None
