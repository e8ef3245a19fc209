"""The order in which waiting runs start: as they were asked for, unless somebody moved one forward. It lies in their folders."""

import math

from studio import whole
from studio.errors import BusyError
from studio.runs import Run

FILE = "turn"


def ordered(waiting: list[Run]) -> list[Run]:
    """The waiting runs, the next one first."""
    return sorted(waiting, key=lambda run: (turn(run), run.name))


def turn(run: Run) -> float:
    """Lower is sooner. The moment at which it was asked for, or what another place in the line has given it."""
    try:
        given = float(whole.read_utf8(run.folder / FILE))
    except (OSError, ValueError):
        given = math.nan
    return given if math.isfinite(given) else run.created


def forward(run: Run, waiting: list[Run]) -> None:
    """Exchange the places of a waiting run and the one before it. Raises BusyError where there is none before it."""
    line = ordered(waiting)
    place = line.index(run) if run in line else 0
    if place == 0:
        raise BusyError("This run is the next one, or it waits no longer.")
    before = line[place - 1]
    mine, others = turn(before), turn(run)
    _take(run, mine)
    _take(before, others if others > mine else mine + 1e-3)


def in_words(place: int) -> str:
    """A place in line for the eye: "next", "2nd in line"."""
    if place == 0:
        return "next in line"
    ending = {1: "st", 2: "nd", 3: "rd"}.get((place + 1) % 10 if (place + 1) % 100 not in (11, 12, 13) else 0, "th")
    return f"{place + 1}{ending} in line"


def _take(run: Run, value: float) -> None:
    whole.write(run.folder / FILE, repr(value))
