"""Throwing runs away, getting them back, and deleting for good what is in the trash or was uploaded."""

from collections.abc import Callable
from typing import Any

import gradio as gr

from studio import shares, trash, uploads
from studio.errors import BusyError, StudioError
from studio.ui.choices import Dropdown, once_closed, with_choices
from studio.ui.studio import PRIVATE, QUIET, Studio, refuse


def build(studio: Studio, in_view: gr.Dropdown, started: gr.State) -> None:
    """The components and their wiring; a run that is put back comes into view through `started`."""
    with gr.Accordion("Trash", open=False, elem_id="trash") as card:
        throw = gr.Button("Move the run in view to the trash", size="sm", variant="stop", elem_id="throw-away")
        thrown = Dropdown([], label="In the trash", visible=False, elem_id="in-trash",
                          info="Whole, and still on the disk. Either put it back or delete it for good.")
        back = gr.Button("Put it back", size="sm", visible=False, elem_id="put-back")
        brought = Dropdown([], label="Uploaded files", visible=False, elem_id="uploaded-files",
                           info="Kept so that runs can use them again. To merge or push a run, its file is not needed.")
        with gr.Row(visible=False) as deleting:
            sure = gr.Checkbox(False, label="Yes, delete for good", elem_id="delete-for-good",
                               info="Nothing that is deleted here can be got back.")
            one = gr.Button("Delete this run", size="sm", variant="stop", elem_id="delete-run")
            everything = gr.Button("Empty the trash", size="sm", variant="stop", elem_id="empty-trash")
            upload = gr.Button("Delete this upload", size="sm", variant="stop", elem_id="delete-upload")
    state, chosen = [thrown, back, brought, deleting, one, everything, upload, sure], [thrown, brought]

    def shown(run: str | None, upload: str | None) -> tuple[Any, ...]:
        """All of it; a run and an upload that were chosen stay so for as long as they are there."""
        found, files = trash.thrown_away(studio.root), uploads.kept(studio.root)
        sizes = [(f"{path.name} ({path.stat().st_size / 1e6:,.1f} MB)", str(path)) for path in files]
        return (with_choices(found, run, _kept(run, found), visible=bool(found)), gr.Button(visible=bool(found)),
                with_choices(sizes, upload, _kept(upload, [path for _, path in sizes]), visible=bool(sizes)),
                gr.Row(visible=bool(found or files)), gr.Button(visible=bool(found)), gr.Button(visible=len(found) > 1),
                gr.Button(visible=bool(files)), False)

    def delete(what: Callable[[], object], sure: bool, *chosen: str | None) -> tuple[Any, ...]:
        try:
            if not sure:
                raise StudioError("Tick “Yes, delete for good” first: what is deleted cannot be got back.")
            what()
        except StudioError as error:
            refuse("Not deleted", error)
        shares.forget_size(studio.root)
        return shown(*chosen)

    def delete_run(sure: bool, run: str | None, upload: str | None) -> tuple[Any, ...]:
        return delete(lambda: trash.delete(studio.root, run or ""), sure, run, upload)

    def empty(sure: bool, *chosen: str | None) -> tuple[Any, ...]:
        return delete(lambda: [trash.delete(studio.root, name) for name in trash.thrown_away(studio.root)], sure, *chosen)

    def delete_upload(sure: bool, run: str | None, upload: str | None) -> tuple[Any, ...]:
        return delete(lambda: remove_upload(studio, upload), sure, run, upload)

    def throw_away(name: str | None, *chosen: str | None) -> tuple[Any, ...]:
        run = studio.find(name)
        try:
            if run is not None:
                trash.throw_away(run)
        except StudioError as error:
            refuse("Not thrown away", error)
        return shown(*chosen)

    def put_back(run: str | None, upload: str | None) -> tuple[Any, ...]:
        try:
            trash.put_back(studio.root, run or "")
        except StudioError as error:
            refuse("Not put back", error)
            return *shown(run, upload), gr.skip()
        return *shown(run, upload), run

    card.expand(shown, chosen, state, **once_closed(*chosen), **QUIET)
    throw.click(throw_away, [in_view, *chosen], state, **PRIVATE)
    back.click(put_back, chosen, [*state, started], **PRIVATE)
    one.click(delete_run, [sure, *chosen], state, **PRIVATE)
    everything.click(empty, [sure, *chosen], state, **PRIVATE)
    upload.click(delete_upload, [sure, *chosen], state, **PRIVATE)


def _kept(chosen: str | None, offered: list[str]) -> str | None:
    """What a list holds: what was chosen, where it is offered, else the first."""
    return chosen if chosen in offered else offered[0] if offered else None


def remove_upload(studio: Studio, path: str | None) -> None:
    """Remove an upload of the visitor's that no run of theirs is about to read. Raises StudioError."""
    for run, status in studio.queue.unfinished().items():
        if run.folder.parent == studio.root and path in [part.source for part in run.settings.data.parts]:
            raise BusyError(f"Run {run.name} is {status} and reads this file. Wait for it to end, or stop it first.")
    uploads.remove(studio.root, path)
