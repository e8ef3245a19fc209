"""What a Space costs while it runs, and the pause that ends it: for an administrator, and only on a Space."""

from typing import Any

import gradio as gr

from studio.access import AccessError
from studio.errors import StudioError
from studio.meter import Meter
from studio.ui import parts, token_field
from studio.ui.studio import PRIVATE, QUIET, Studio, refuse

WORDS = ("A Space is billed while it runs. It can be paused by itself once nothing has been at work for a while: no run, merge, push "
         "or examination, and no question under Compare. A page that is only open does not count. The token is kept in memory, so "
         "this is to be asked for again after each restart.")
LOOK_SECONDS = 20.0


def build(studio: Studio, page: gr.Blocks) -> None:
    """The components and their wiring; nothing where there is no Space."""
    meter = studio.meter
    if meter is None or not meter.space:
        return
    with gr.Accordion("What this Space costs", open=True, visible=False, elem_id="meter") as card:
        told = gr.HTML(elem_id="meter-told", padding=False)
        gr.Markdown(WORDS)
        with gr.Row(elem_classes="fields"):
            minutes = gr.Number(15, label="Minutes without work", info="Five at least.", precision=0, elem_id="meter-minutes")
            token = token_field.build("meter-token", "Kept in memory, never written.", "Hub token with write access to this Space",
                                      to_write=True)
        with gr.Row():
            arm = gr.Button("Pause it when nothing is left to do", variant="primary", size="sm", elem_id="meter-arm")
            disarm = gr.Button("Let it run on", size="sm", visible=False, elem_id="meter-disarm")

    def mine() -> Meter:
        if not studio.who().admin:
            raise AccessError("Only an administrator decides when this Space is paused.")
        return meter

    def look() -> tuple[Any, ...]:
        if not studio.who().admin:
            return (gr.skip(),) * 3
        return gr.Accordion(visible=True), parts.note(*meter.in_words()), gr.Button(visible=meter.armed is not None)

    def start(token: str, minutes: float) -> tuple[Any, ...]:
        try:
            mine().arm(token, minutes)
        except StudioError as error:
            return (refuse("Not asked for", error),) * 3
        return look()

    def stop() -> tuple[Any, ...]:
        try:
            mine().disarm()
        except StudioError as error:
            return (refuse("Not changed", error),) * 3
        return look()

    shown = [card, told, disarm]
    page.load(look, None, shown, **QUIET)
    gr.Timer(LOOK_SECONDS).tick(look, None, shown, **QUIET)
    arm.click(start, [token, minutes], shown, **PRIVATE)
    disarm.click(stop, None, shown, **PRIVATE)
