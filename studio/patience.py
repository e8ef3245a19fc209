"""Whether a run would take longer on this machine than anybody wants to wait, which is asked once before it begins."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from studio import events, pace, two_steps
from studio.gpu import Place
from studio.pace import Forecast
from studio.settings import Settings
from studio.shape import Shape

LONG_ON_CPU, LONG = 3 * 3600, 48 * 3600
"""Seconds beyond which a person is asked: on a CPU, where a GPU would take minutes, and anywhere."""


@dataclass(frozen=True)
class Wait:
    """How long a run is expected to take on this machine."""

    forecast: Forecast
    on_cpu: bool

    @property
    def seconds(self) -> float:
        return self.forecast.usual

    @property
    def is_long(self) -> bool:
        """Whether to ask before the run begins."""
        return self.seconds > (LONG_ON_CPU if self.on_cpu else LONG)

    def in_words(self) -> str:
        """The question, with what could be done instead."""
        less = ("A GPU would do it in a fraction of that: see the Spaces above. Or choose a smaller model, fewer rows or fewer epochs."
                if self.on_cpu else "Fewer rows, fewer epochs or a smaller model take less.")
        return f"This run would take about {self.forecast.in_words()} on this machine, by {self.forecast.how}. {less}"


def expected(root: Path, settings: Settings, shape: Shape, place: Place, read: Callable[[Path], list[events.Event]],
             tried: events.Tried | None = None) -> Wait | None:
    """The wait for a run on this machine; None where nothing is known of its speed. `tried`: two steps, where they have been looked up.

    Of data whose size is not known it is that for 1,000 pairs.
    """
    if tried is None:
        trial = two_steps.trial(root)
        tried = trial.outcome if trial.speaks_of(settings) and not trial.at_work else None
    earlier = None if tried else pace.earlier_seconds(root, settings, place.name, read)
    forecast = pace.forecast(settings, shape, place, pace.size_of(root, settings), tried, earlier)
    return None if forecast is None else Wait(forecast, place.kind == "cpu")
