"""Live charts of a run: eight panels that grow while points arrive, and keep zoom and hover.

The component's value is small: {"run": name, "count": rows so far, "others": {name: rows so far}}, the others laid over it.
When it changes, assets/charts.js asks the server for the rows it does not have yet and draws them. So the server keeps no
cursor, and a reloaded page simply asks for all.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import gradio as gr

from studio.ui import parts

SCRIPT = Path(__file__).resolve().parents[2] / "assets" / "charts.js"
PLOTLY = Path(find_spec("plotly").origin).parent / "package_data" / "plotly.min.js"
"""The drawing library as its wheel brings it; served from here, so that the charts need no internet."""

EMPTY = "The curves begin here with the first training steps."

Points = Callable[[str, int], dict[str, Any]]
"""(run, have) -> {"rows": those from index `have` on, "total": how many there are}."""


@dataclass(frozen=True)
class Line:
    """One curve: a metric, or with `minus` the difference of two. `ink` is its colour; a dash tells it apart without one."""

    metric: str
    name: str
    ink: Literal["main", "better", "worse"] = "main"
    dash: Literal["solid", "dash", "dot"] = "solid"
    minus: str = ""
    held_out: bool = True
    """Whether the same metric on held-out pairs is drawn with it."""


@dataclass(frozen=True)
class Panel:
    """One chart: curves of one kind, with a caption that says what they mean. `format` and `ticks` are d3's."""

    id: str
    title: str
    caption: str
    lines: tuple[Line, ...]
    large: bool = False
    smooth: bool = True
    limits: tuple[float, float] | None = None
    format: str = ".4~g"
    ticks: str = ""


def _both_answers(group: str) -> tuple[Line, Line]:
    """The curves of a metric that exists for the better and for the worse answers."""
    return Line(f"{group}/chosen", "better", "better"), Line(f"{group}/rejected", "worse", "worse", "dash")


PANELS = (
    Panel("loss", "Loss", "What training makes smaller; its two parts add up to it. Falling is good. Held out, every token of all "
                          "pairs weighs the same; in training every batch does, so the two need not meet.",
          (Line("loss", "loss"),
           Line("nll_loss", "likelihood part", "better", "dash", held_out=False),
           Line("loss", "odds-ratio part", "worse", "dot", minus="nll_loss", held_out=False)), large=True),
    Panel("margin", "Reward margin", "How far apart the model holds good and bad answers. Rising is good.",
          (Line("rewards/margins", "margin"),), large=True),
    Panel("accuracy", "Preference accuracy", "The share of pairs where the model prefers the better answer. Half is chance.",
          (Line("rewards/accuracies", "accuracy"),), limits=(0, 1)),
    Panel("rewards", "Rewards", "How the model values both answers. Below zero is normal; the gap between them counts.",
          _both_answers("rewards")),
    Panel("logps", "Log-probabilities", "How likely the model is to write each answer. The better ones should not sink.",
          _both_answers("logps")),
    Panel("odds", "Log odds", "How strongly the model favours the better answer, and the penalty left. Rising is good.",
          (Line("log_odds_chosen", "log odds", "better"),
           Line("log_odds_ratio", "penalty", "worse", "dash"))),
    Panel("rate", "Learning rate", "How big the steps are: it rises during the warm-up, then sinks.",
          (Line("learning_rate", "learning rate", held_out=False),), smooth=False, format=".2e", ticks=".1~e"),
    Panel("gradient", "Gradient norm", "How hard each step pulls at the weights. Single spikes do no harm, a steady rise does.",
          (Line("grad_norm", "gradient norm", held_out=False),)),
)

METRICS = frozenset(name for panel in PANELS for line in panel.lines for name in (line.metric, line.minus) if name)
"""The names that are drawn; only these travel to the browser."""


def live_charts(points: Points) -> gr.HTML:
    """The charts as one component, fed by `points`. Output {"run": name, "count": n} to it whenever a run has grown."""

    def fresh(asked: dict) -> dict[str, Any]:
        # Anyone who reaches the page can call this with anything.
        run, have = asked.get("run"), asked.get("have")
        if not isinstance(run, str) or not isinstance(have, int):
            return {"rows": [], "total": 0}
        found = points(run, max(0, have))
        return {"rows": [slim(row) for row in found["rows"]], "total": found["total"]}

    gr.set_static_paths([PLOTLY])
    return gr.HTML({"run": "", "count": 0}, html_template=markup(), js_on_load=SCRIPT.read_text(encoding="utf-8"),
                   server_functions=[fresh], panels=[asdict(panel) for panel in PANELS], library=PLOTLY.as_posix(),
                   elem_id="charts", padding=False)


def slim(row: dict[str, Any]) -> dict[str, Any]:
    """A row with the drawn metrics alone. What is no number becomes null, which is drawn as a gap and never as zero."""
    metrics = {name: _number(value) for name, value in row["metrics"].items() if name in METRICS}
    return {"step": row["step"], "split": row["split"], "metrics": metrics}


def _number(value: float | None) -> float | None:
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None


def markup() -> str:
    """The panels' frames. The same whatever the value, so that Gradio never touches what the script drew into them."""
    return (f'<div class="charts" data-state="empty">{parts.empty(EMPTY)}'
            f'<div class="chart-grid"><h2 class="unseen">Curves</h2>{"".join(_frame(panel) for panel in PANELS)}</div></div>')


def _frame(panel: Panel) -> str:
    title = parts.text(panel.title)
    return (f'<figure class="chart{" large" if panel.large else ""}" id="chart-{panel.id}">'
            f'<figcaption><div class="chart-head"><h3>{title}</h3>'
            f'<span class="latest" aria-hidden="true"></span>'
            f'<button type="button" class="reset" hidden aria-label="Show all steps of {title}">Show all</button>'
            f'<button type="button" class="save" aria-label="Save {title} as a picture" title="Save as a picture">{DOWN}</button>'
            f'</div><p>{parts.text(panel.caption)}</p></figcaption>'
            f'<div class="plot" role="img" aria-label="{title}: no points yet"></div></figure>')


DOWN = ('<svg viewBox="0 0 16 16" aria-hidden="true"><path d="M8 2v8m0 0 3.2-3.2M8 10 4.8 6.8M2.5 13.5h11" fill="none" '
        'stroke="currentColor" stroke-width="1.6" stroke-linecap="round" stroke-linejoin="round"/></svg>')
