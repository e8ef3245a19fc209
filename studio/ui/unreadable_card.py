"""Folders among the runs that cannot be read as one: which and why, and the way to the trash."""

from typing import Any

import gradio as gr

from studio import trash
from studio.errors import StudioError
from studio.ui import news, parts
from studio.ui.choices import Dropdown, once_closed, with_choices
from studio.ui.studio import PRIVATE, QUIET, Studio, refuse

SHOWN = 50
WORDS = "These folders lie among your runs and cannot be read as one. All other runs are listed as usual."


def listed(studio: Studio, within: float = 0.0) -> list[tuple[str, str]]:
    """The folders that the visitor could see if they were runs, each with the reason why it is none."""
    return [(entry.run.name, entry.reason) for entry in studio.entries(within) if entry.reason]


def build(studio: Studio, seen: gr.Textbox) -> None:
    """The components and their wiring; they show themselves when `seen`, the news of the list of runs, has changed."""
    with gr.Accordion("Folders that cannot be read", open=True, visible=False, elem_id="unreadable") as card:
        told = gr.HTML(elem_id="unreadable-told", padding=False)
        choice = Dropdown([], label="Folder", elem_id="unreadable-folder")
        throw = gr.Button("Move it to the trash", size="sm", variant="stop", elem_id="throw-unreadable")
    shown = [card, told, choice]

    def show(chosen: str | None) -> tuple[Any, ...]:
        found = listed(studio)
        names = [name for name, _ in found[:SHOWN]]
        stays = chosen if chosen in names else names[0] if names else None
        more = parts.note("info", f"And {len(found) - SHOWN:,} more.") if len(found) > SHOWN else ""
        return (gr.Accordion(visible=bool(found)),
                parts.note("warn", WORDS) + parts.table(("Folder", "Why"), found[:SHOWN]) + more if found else "",
                with_choices(names, chosen, stays))

    def throw_away(name: str | None) -> tuple[Any, ...]:
        entry = next((entry for entry in studio.entries() if entry.reason and entry.run.name == name), None)
        try:
            if entry is None:
                raise StudioError("This folder is no longer among those that cannot be read. Choose one from the list.")
            trash.throw_away(entry.run)
        except StudioError as error:
            refuse("Not thrown away", error)
        return show(name)

    news.own(seen.change).change(show, choice, shown, **once_closed(choice), **QUIET)
    throw.click(throw_away, choice, shown, **PRIVATE)
