"""Throwing runs away, and getting them back."""

from typing import Any

import gradio as gr

from studio import trash
from studio.errors import StudioError
from studio.ui.choices import Dropdown
from studio.ui.studio import PRIVATE, QUIET, Studio, refuse


def build(studio: Studio, in_view: gr.Dropdown, started: gr.State) -> None:
    """The components and their wiring; a run that is put back comes into view through `started`."""
    with gr.Accordion("Trash", open=False, elem_id="trash") as card:
        throw = gr.Button("Move the run in view to the trash", size="sm", variant="stop", elem_id="throw-away")
        thrown = Dropdown([], label="In the trash", visible=False, elem_id="in-trash",
                          info="Whole, and still on the disk. What is never wanted again is deleted there by hand.")
        back = gr.Button("Put it back", size="sm", visible=False, elem_id="put-back")

    def shown() -> tuple[Any, gr.Button]:
        found = trash.thrown_away(studio.root)
        return gr.Dropdown(found, value=found[0] if found else None, visible=bool(found)), gr.Button(visible=bool(found))

    def throw_away(name: str | None) -> tuple[Any, gr.Button]:
        run = studio.find(name)
        try:
            if run is not None:
                trash.throw_away(run)
        except StudioError as error:
            refuse("Not thrown away", error)
        return shown()

    def put_back(name: str | None) -> tuple[Any, gr.Button, str]:
        try:
            trash.put_back(studio.root, name or "")
        except StudioError as error:
            refuse("Not put back", error)
            return *shown(), gr.skip()
        return *shown(), name

    card.expand(shown, None, [thrown, back], **QUIET)
    throw.click(throw_away, in_view, [thrown, back], **PRIVATE)
    back.click(put_back, thrown, [thrown, back, started], **PRIVATE)
