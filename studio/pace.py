"""How long a run takes and what that costs: from runs that were, from two tried steps, else roughly by arithmetic.

Every forecast of a time is a `Forecast` from here, a range from the worker's start to its end; no text promises another one.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from studio import events, examination, runs
from studio.fit import Kind, device_of, fit
from studio.gpu import Place
from studio.hardware import PRICES, SHARE, Hardware, of_cores, published
from studio.plan import held_out_for, pairs_seen, plan
from studio.practice import PAIRS as PRACTICE_PAIRS
from studio.runs import Run
from studio.settings import PRACTICE, DataSettings, Settings
from studio.shape import Shape
from studio.summary import Summary, between

REACHED = {"cuda": (0.15, 1.15), "cpu": (0.4, 4.0)}
"""What training reaches at least and at most, of the speed that SHARE takes for usual. The tutorial's run takes TRL, which computes
1.25 times as much, two hours on an L4: that is 0.14."""
KNOWN = {"a trial": (0.85, 1.3), "an earlier run": (0.75, 1.4)}
"""How far a run of the same model may take less or more than was measured."""
FORWARD = 0.5
"""Of what a training step costs for a pair, what it costs to measure it: the forward pass."""
SAMPLED = 3 * 96
"""Tokens that are written at most at each look: three prompts' answers."""
STARTING, READING = (5, 30), (2e9, 2e8)
"""Seconds in which a worker has imported its libraries, and bytes a second at which weights are read."""

LAYER_SECONDS = 0.004
"""Least time of a layer in a step: a small model waits for its kernels to be launched, not for their arithmetic."""

LONGEST_SECONDS = 14 * 24 * 3600
"""Nobody is offered hardware on which a run takes longer than two weeks."""

RUNS_LOOKED_AT = 20
LINES_LOOKED_AT = 500
CHARACTERS_A_TOKEN = 4
LINE_BY_LINE = {".jsonl", ".csv", ".tsv"}
"""Files that mostly have a line for each pair. A text in quotes may hold line breaks: then there are fewer pairs than lines."""


FREE_ON_A_SPACE = 0.95
"""Of a card's memory; the driver keeps the rest."""

@dataclass(frozen=True)
class Size:
    """What a run goes through: pairs to learn from and held out, and tokens of an average pair. None where it cannot be known."""

    pairs: int | None
    tokens: float | None = None
    held_out: int | None = None


def size_of(root: Path, settings: Settings) -> Size:
    """The size of these data as their examination found it; without one by the lines of a file that has one for each pair, or by
    what the form says."""
    found = examination.found(examination.job_of(root, settings))
    if found:
        return Size(found.learned, found.lengths.tokens if found.lengths else None, found.held_out)
    data = settings.data
    path = PRACTICE_PAIRS if data.source == PRACTICE else Path(data.source)
    if path.suffix not in LINE_BY_LINE or not path.is_file():
        return _divided(data.rows, data)
    lines, characters = 0, 0
    with open(path, encoding="utf-8", errors="replace") as text:
        for line in text:
            lines += 1
            characters += len(line) if lines <= LINES_LOOKED_AT else 0
    rows = max(1, lines - (path.suffix != ".jsonl"))  # without the header
    return _divided(min(rows, data.rows or rows), data, characters / max(1, min(lines, LINES_LOOKED_AT)) / CHARACTERS_A_TOKEN)


def _divided(rows: int | None, data: DataSettings, tokens: float | None = None) -> Size:
    if rows is None:
        return Size(None)
    held_out = held_out_for(rows, data.held_out)
    return Size(max(1, rows - held_out), tokens, held_out)


@dataclass(frozen=True)
class Forecast:
    """Seconds of a whole run, measuring and saving included: at least and at most, and by what they are known."""

    low: float
    high: float
    how: str

    @property
    def usual(self) -> float:
        """One figure, where one is needed to sort by: as many times `low` as `high` is times it."""
        return (self.low * self.high) ** 0.5

    def in_words(self) -> str:
        return between(self.low, self.high)


def forecast(settings: Settings, shape: Shape, place: Place, size: Size, tried: events.Tried | None = None,
             earlier: float | None = None) -> Forecast | None:
    """How long a run takes here. None where nothing says how fast this machine is.

    `tried` are two steps taken with these settings, `earlier` the seconds a pair of a run with this model; they are believed in this
    order. Where the pairs are not known it is for a thousand, where their length is not, for the longest that the settings allow.
    """
    if tried is not None:
        a_pair, how = tried.seconds / max(1, tried.step_tokens) * tried.all_tokens / max(1, tried.pairs), "a trial"
        return _of_pairs(settings, shape, Size(tried.pairs, None, size.held_out), a_pair, how)
    if earlier is not None:
        return _of_pairs(settings, shape, size, earlier, "an earlier run")
    tflops = of_cores(os.cpu_count() or 1) if place.kind == "cpu" else published(place.name)
    return None if tflops is None else rough(settings, shape, tflops, place.kind, size)


def _of_pairs(settings: Settings, shape: Shape, size: Size, a_pair: float, how: str) -> Forecast:
    low, high = (a_pair * _pairs(settings, size) * factor for factor in KNOWN[how])
    return Forecast(low + _besides(shape, 0), high + _besides(shape, 1), how)


def rough(settings: Settings, shape: Shape, tflops: float, kind: Kind, size: Size) -> Forecast:
    """By arithmetic: 4 operations a weight and token, 6 with all layers recomputed, at the published speed of a chip."""
    longest, pairs = 2 * settings.training.max_length, _pairs(settings, size)
    each = 6 if settings.training.gradient_checkpointing == "full" else 4
    seconds = each * shape.parameters * min(size.tokens or longest, longest) * pairs / (tflops * 1e12 * SHARE)
    planned = plan(settings, size.pairs or 1000, size.held_out or 0)
    least, asked = planned.steps * shape.layers * LAYER_SECONDS, _looks(settings, size) * SAMPLED * shape.layers * LAYER_SECONDS
    slow, fast = REACHED[device_of(kind)]
    return Forecast(max(seconds / fast, least) + _besides(shape, 0), max(seconds, least) / slow + asked + _besides(shape, 1), "arithmetic")


def _besides(shape: Shape, end: int) -> float:
    """Seconds to start a worker and read the weights: at least (0) or at most (1)."""
    return STARTING[end] + shape.stored / READING[end]


def _looks(settings: Settings, size: Size) -> int:
    """Measurements of a run: before, between and after its steps."""
    planned = plan(settings, size.pairs or 1000, size.held_out or 0)
    return (planned.steps - 1) // planned.measure_every + 2


def _pairs(settings: Settings, size: Size) -> float:
    """Pairs that a run computes, those that are only measured counted for as much as they cost."""
    return pairs_seen(settings.training, size.pairs or 1000) + FORWARD * _looks(settings, size) * (size.held_out or 0)


def earlier_seconds(root: Path, settings: Settings, device: str, read: Callable[[Path], list[events.Event]]) -> float | None:
    """Seconds a pair of the newest run with this model, quantization and length on this device; None if there is none."""
    for run in runs.listed(root)[:RUNS_LOOKED_AT]:
        if not _alike(run, settings):
            continue
        summary = Summary(read(run.folder / events.FILE))
        if summary.device == device and summary.seconds_a_step:
            training = run.settings.training
            return summary.seconds_a_step / (training.batch_size * training.accumulation)
    return None


def _alike(run: Run, settings: Settings) -> bool:
    try:
        was = run.settings
    except Exception:  # a folder of another version
        return False
    return (was.model.name, was.model.revision, was.model.quantization, was.model.device, was.data.source, was.training.max_length) == (
        settings.model.name, settings.model.revision, settings.model.quantization, settings.model.device, settings.data.source,
        settings.training.max_length)


@dataclass(frozen=True)
class Offer:
    """A Space on which a run fits, and how long it takes there."""

    hardware: Hardware
    forecast: Forecast

    @property
    def dollars(self) -> tuple[float, float]:
        """For the whole run, at least and at most."""
        return tuple(seconds / 3600 * self.hardware.dollars for seconds in (self.forecast.low, self.forecast.high))


def offers(settings: Settings, shape: Shape, size: Size, longest: int | None = None) -> list[Offer]:
    """The Spaces' hardware on which a run fits, cheapest first, then fastest; for the size that `forecast` takes."""
    kinds = {"gpu": ("cuda", "cuda before Ampere"), "cpu": ("cpu",)}.get(settings.model.device, get_args(Kind))
    found = []
    for one in PRICES.spaces:
        if one.kind in kinds and fit(settings, shape, int(FREE_ON_A_SPACE * one.memory), one.kind, longest).verdict == "fits":
            offer = Offer(one, rough(settings, shape, one.tflops, one.kind, size))
            if offer.forecast.usual <= LONGEST_SECONDS:
                found.append(offer)
    return sorted(found, key=lambda offer: (offer.forecast.usual * offer.hardware.dollars, offer.forecast.usual))
