"""How long a run takes and what that costs: from runs that were, from two tried steps, else roughly by arithmetic."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from studio import events, examination, runs
from studio.fit import Kind, fit
from studio.gpu import Place
from studio.plan import held_out_for, pairs_seen, steps_for
from studio.practice import PAIRS as PRACTICE_PAIRS
from studio.runs import Run
from studio.settings import PRACTICE, DataSettings, Settings
from studio.shape import Shape
from studio.summary import Summary

SHARE = 0.35
"""Of a chip's published speed, what training usually reaches."""

CORE_TFLOPS = 0.025
"""What a CPU core reaches in float32: from 0.01 on an old laptop to 0.1 on a server."""

LAYER_SECONDS = 0.004
"""Least time of a layer in a step: a small model waits for its kernels to be launched, not for their arithmetic."""

LONGEST_SECONDS = 14 * 24 * 3600
"""Nobody is offered hardware on which a run takes longer than two weeks."""

RUNS_LOOKED_AT = 20
LINES_LOOKED_AT = 500
CHARACTERS_A_TOKEN = 4
LINE_BY_LINE = {".jsonl", ".csv", ".tsv"}
"""Files that mostly have a line for each pair. A text in quotes may hold line breaks: then there are fewer pairs than lines."""


@dataclass(frozen=True)
class Hardware:
    """A Space's hardware: its name and the Hub's word for it, memory in bytes, dense 16-bit TFLOP/s as published, dollars an hour."""

    name: str
    slug: str
    memory: int
    tflops: float
    dollars: float
    kind: Kind = "cuda"


# List prices of 2025 for upgraded Spaces. They change: huggingface.co/pricing has today's.
PRICES_OF = "2025"
SPACES = (
    Hardware("CPU basic", "cpu-basic", 16 * 10**9, 2 * CORE_TFLOPS / SHARE, 0.00, "cpu"),
    Hardware("T4 small", "t4-small", 16 * 10**9, 65, 0.40),
    Hardware("T4 medium", "t4-medium", 16 * 10**9, 65, 0.60),
    Hardware("L4", "l4x1", 24 * 10**9, 121, 0.80),
    Hardware("A10G small", "a10g-small", 24 * 10**9, 70, 1.00),
    Hardware("A10G large", "a10g-large", 24 * 10**9, 70, 1.50),
    Hardware("L40S", "l40sx1", 48 * 10**9, 362, 1.80),
    Hardware("A100 large", "a100-large", 80 * 10**9, 312, 2.50),
    Hardware("H200", "h200", 141 * 10**9, 989, 5.00),
)
FREE_ON_A_SPACE = 0.95
"""Of a card's memory; the driver keeps the rest."""

PUBLISHED = {"T4": 65, "L4": 121, "A10": 70, "L40S": 362, "A100": 312, "H100": 989, "H200": 989}
"""Dense 16-bit TFLOP/s by what a card's name says."""


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


def rough_seconds(settings: Settings, shape: Shape, tflops: float, size: Size) -> float:
    """Seconds of a run by arithmetic: 4 operations a weight and token, 6 with all layers recomputed.

    Where the pairs are not known it is for a thousand, where their length is not, for the longest the settings allow.
    """
    pairs, longest = size.pairs or 1000, 2 * settings.training.max_length
    each = 6 if settings.training.gradient_checkpointing == "full" else 4
    tokens = min(size.tokens or longest, longest) * pairs_seen(settings.training, pairs)
    arithmetic = each * shape.parameters * tokens / (tflops * 1e12 * SHARE)
    return max(arithmetic, steps_for(settings.training, pairs) * shape.layers * LAYER_SECONDS)


def published(card: str) -> float | None:
    """The published speed of a card by its name; None for one that is not in the table."""
    words = card.replace("-", " ").split()
    return next((speed for name, speed in PUBLISHED.items() if any(word.upper() in (name, name + "G") for word in words)), None)


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
    """A Space on which a run fits: seconds and dollars for the whole run."""

    hardware: Hardware
    seconds: float
    dollars: float


def offers(settings: Settings, shape: Shape, size: Size, longest: int | None = None) -> list[Offer]:
    """The Spaces' hardware on which a run fits, cheapest first, then fastest; for the size that `rough_seconds` takes."""
    kinds = {"gpu": ("cuda",), "cpu": ("cpu",)}.get(settings.model.device, ("cpu", "cuda"))
    found = []
    for one in SPACES:
        if one.kind in kinds and fit(settings, shape, int(FREE_ON_A_SPACE * one.memory), one.kind, longest).verdict == "fits":
            seconds = rough_seconds(settings, shape, one.tflops, size)
            if seconds <= LONGEST_SECONDS:
                found.append(Offer(one, seconds, seconds / 3600 * one.dollars))
    return sorted(found, key=lambda offer: (offer.dollars, offer.seconds))


def here_tflops(place: Place) -> float | None:
    """The published speed of what this machine computes on; None for a card that is not in the table."""
    return (os.cpu_count() or 1) * CORE_TFLOPS / SHARE if place.kind == "cpu" else published(place.name)
