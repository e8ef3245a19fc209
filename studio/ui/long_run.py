"""Start asks once before a run that would take hours or days on this machine, or whose model cannot be looked up."""

from dataclasses import dataclass, field
from typing import Any

import gradio as gr
from gradio.components import Component

from studio import gpu, patience
from studio.errors import StudioError
from studio.settings import Settings
from studio.ui import form, parts
from studio.ui.studio import QUIET, Studio

MORE = 1.2
"""Once agreed to, a run that takes so many times as long is asked about again: the form may have changed meanwhile."""
UNKNOWN = "So it is not known whether this run fits, or how long it takes. It may wait in line for nothing."


@dataclass
class Question:
    """The question above Start and its two answers."""

    agreed: gr.State = field(init=False)
    box: gr.Column = field(init=False)
    words: gr.HTML = field(init=False)
    yes: gr.Button = field(init=False)

    @property
    def outputs(self) -> list[Component]:
        """What `asked` and `settled` give."""
        return [self.agreed, self.box, self.words]

    def build(self) -> None:
        """The components, hidden until there is something to ask."""
        self.agreed = gr.State(0.0)
        with gr.Column(visible=False, elem_id="long-run", elem_classes="question") as self.box:
            self.words = gr.HTML("", padding=False)
            with gr.Row():
                no = gr.Button("Back to the settings", elem_id="not-started")
                self.yes = gr.Button("Start it all the same", variant="stop", elem_id="start-long", elem_classes=form.ACTS)
        no.click(lambda: settled(), None, self.outputs, **QUIET)


def settled() -> list[Any]:
    """Nothing to ask, or not any more."""
    return [0.0, gr.Column(visible=False), ""]


def asked(studio: Studio, settings: Settings, token: str, agreed: float = 0.0) -> list[Any] | None:
    """The question to put before a run begins; None where there is none. `agreed` are the seconds that were agreed to."""
    try:
        shape = studio.shapes.find(settings.model, token or None)
    except StudioError as error:
        return None if agreed else _shown(1.0, f"{error} {UNKNOWN}")
    place = gpu.place(settings)
    wait = patience.expected(studio.root, settings, shape, place, lambda log: studio.readings.of(log).said) if place is not None else None
    if wait is None or not wait.is_long or wait.seconds <= MORE * agreed:
        return None
    return _shown(wait.seconds, wait.in_words())


def _shown(seconds: float, words: str) -> list[Any]:
    return [seconds, gr.Column(visible=True), f'<div role="alert">{parts.note("warn", words)}</div>']
