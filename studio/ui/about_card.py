"""A title and notes for the run in view."""

from typing import Any

import gradio as gr

from studio import about
from studio.errors import StudioError
from studio.ui import news
from studio.ui.studio import PRIVATE, QUIET, Studio, refuse


def build(studio: Studio, in_view: gr.Dropdown) -> None:
    """The components and their wiring. Whatever shows the run sees a new title by itself."""
    with gr.Accordion("Title and notes", open=False, elem_id="about") as card:
        title = gr.Textbox(label="Title", max_length=about.LONGEST_TITLE, elem_id="run-title",
                           info="Stands beside the run's name in every list. The name itself stays.")
        notes = gr.Textbox(label="Notes", lines=4, max_length=about.LONGEST_NOTES, elem_id="run-notes",
                           info="For yourself: what you tried, what you saw. They stay in the run's folder and are never pushed.")
        save = gr.Button("Save title and notes", size="sm", elem_id="save-about")

    def shown(name: str | None) -> tuple[str, str]:
        run = studio.find(name)
        found = about.of(run) if run is not None else about.About()
        return found.title, found.notes

    def seen(name: str | None, title: str, notes: str) -> list[Any]:
        """Only what another page has changed: what is being written here stays."""
        return [gr.skip() if here == there else there for here, there in zip((title, notes), shown(name), strict=True)]

    def keep(name: str | None, title: str, notes: str) -> tuple[Any, Any]:
        run = studio.find(name)
        if run is None:
            return refuse("Not saved", "There is no run in view. Start one first.")
        try:
            kept = about.write(run, title, notes)
        except StudioError as error:
            return refuse("Not saved", error)
        gr.Info(f"Saved with run {run.name}.")
        return kept.title, kept.notes

    news.own(in_view.change).change(shown, in_view, [title, notes], **QUIET)
    card.expand(seen, [in_view, title, notes], [title, notes], **QUIET)
    save.click(keep, [in_view, title, notes], [title, notes], **PRIVATE)
