"""A run's curves as a picture for its card: loss and reward margin by step, in training and on held-out pairs.

Drawn with Pillow, which comes with Gradio, three times as large and then reduced, so that lines are smooth. The same run gives
the same bytes.
"""

import io
import math

from PIL import Image, ImageDraw, ImageFont

from studio.summary import Summary

FILE = "curves.png"
WIDTH, HEIGHT, SCALE = 900, 330, 3
LEFT, RIGHT, TOP, BOTTOM, GAP = 58, 14, 40, 40, 26
"""Margins of a panel in pixels, and what lies between two."""
PANELS = {"loss": "Loss", "rewards/margins": "Reward margin"}
TRAINED, MEASURED, AXIS, GRID, TEXT = "#4763d0", "#c2571a", "#777777", "#e4e4e4", "#222222"
TICKS = 4
Points = list[tuple[float, float]]


def png(summary: Summary) -> bytes | None:
    """The picture, or None of a run without two steps to draw a line between."""
    if len(summary.steps) < 2:
        return None
    image = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), "white")
    pen = ImageDraw.Draw(image)
    wide = (WIDTH - GAP * (len(PANELS) - 1)) // len(PANELS)
    for place, (name, title) in enumerate(PANELS.items()):
        lines = {"training": [(step.step, step.metrics.get(name)) for step in summary.steps],
                 "held out": [(look.step, look.metrics.get(name)) for look in summary.looks]}
        _panel(pen, place * (wide + GAP), wide, title, {kind: _finite(points) for kind, points in lines.items()})
    content = io.BytesIO()
    image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS).save(content, "PNG", optimize=True)
    return content.getvalue()


def _finite(points) -> Points:
    return [(float(step), float(value)) for step, value in points if value is not None and math.isfinite(value)]


def _panel(pen: ImageDraw.ImageDraw, left: int, wide: int, title: str, lines: dict[str, Points]) -> None:
    """One chart with its axes and its key, its left edge at `left`."""
    box = (left + LEFT, TOP, left + wide - RIGHT, HEIGHT - BOTTOM)
    _words(pen, (box[0], 12), title, 15, "lm")
    everything = [point for points in lines.values() for point in points]
    if not everything:
        _words(pen, ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), "not measured", 13, "mm")
        return
    steps = (0.0, max(step for step, _ in everything))
    marks = ticks(min(value for _, value in everything), max(value for _, value in everything))
    values = (marks[0], marks[-1])

    def at(step: float, value: float) -> tuple[float, float]:
        return (box[0] + (box[2] - box[0]) * (step - steps[0]) / (steps[1] - steps[0] or 1),
                box[3] - (box[3] - box[1]) * (value - values[0]) / (values[1] - values[0]))

    for mark in marks:
        height = at(0, mark)[1]
        _line(pen, [(box[0], height), (box[2], height)], GRID, 1)
        _words(pen, (box[0] - 6, height), f"{mark:.6g}", 12, "rm")
    for mark in ticks(*steps):
        if mark <= steps[1] and mark == int(mark):
            _words(pen, (at(mark, values[0])[0], box[3] + 12), f"{mark:,.0f}", 12, "mm")
    _line(pen, [(box[0], box[3]), (box[2], box[3])], AXIS, 1)
    _words(pen, ((box[0] + box[2]) / 2, HEIGHT - 8), "optimizer step", 12, "mm")
    for (kind, points), colour, place in zip(lines.items(), (TRAINED, MEASURED), (150, 75), strict=True):
        if points:
            _curve(pen, [at(*point) for point in points], colour, dots=kind != "training")
            _words(pen, (box[2] - place, 12), kind, 13, "lm", colour)


def _curve(pen: ImageDraw.ImageDraw, points: Points, colour: str, dots: bool) -> None:
    _line(pen, points, colour, 2)
    for x, y in points if dots else ():
        pen.ellipse([(x - 3) * SCALE, (y - 3) * SCALE, (x + 3) * SCALE, (y + 3) * SCALE], fill=colour)


def _line(pen: ImageDraw.ImageDraw, points: Points, colour: str, wide: int) -> None:
    pen.line([(x * SCALE, y * SCALE) for x, y in points], fill=colour, width=wide * SCALE, joint="curve")


def _words(pen: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int, anchor: str, colour: str = TEXT) -> None:
    pen.text((at[0] * SCALE, at[1] * SCALE), text, fill=colour, font=ImageFont.load_default(size * SCALE), anchor=anchor)


def ticks(lowest: float, highest: float) -> list[float]:
    """Round numbers that enclose a range, about TICKS of them, evenly spaced."""
    span = (highest - lowest) or abs(highest) or 1.0
    power = 10.0 ** math.floor(math.log10(span / TICKS))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor * TICKS >= span * 0.999)
    first, last = math.floor(lowest / step + 1e-9), math.ceil(highest / step - 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, max(last, first + 1) + 1)]
