"""Throwing runs away, getting them back, and deleting for good what is in the trash or was uploaded."""

from collections.abc import Callable
from typing import Any

import gradio as gr

from studio import shares, trash, uploads
from studio.errors import BusyError, StudioError
from studio.ui.choices import Dropdown
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
    state = [thrown, back, brought, deleting, one, everything, upload, sure]

    def shown() -> tuple[Any, ...]:
        found, files = trash.thrown_away(studio.root), uploads.kept(studio.root)
        sizes = [(f"{path.name} ({path.stat().st_size / 1e6:,.1f} MB)", str(path)) for path in files]
        return (gr.Dropdown(found, value=found[0] if found else None, visible=bool(found)), gr.Button(visible=bool(found)),
                gr.Dropdown(sizes, value=sizes[0][1] if sizes else None, visible=bool(sizes)), gr.Row(visible=bool(found or files)),
                gr.Button(visible=bool(found)), gr.Button(visible=len(found) > 1), gr.Button(visible=bool(files)), False)

    def delete(what: Callable[[], None], sure: bool) -> tuple[Any, ...]:
        try:
            if not sure:
                raise StudioError("Tick “Yes, delete for good” first: what is deleted cannot be got back.")
            what()
        except StudioError as error:
            refuse("Not deleted", error)
        shares.forget_size(studio.root)
        return shown()

    def delete_run(name: str | None, sure: bool) -> tuple[Any, ...]:
        return delete(lambda: trash.delete(studio.root, name or ""), sure)

    def empty(sure: bool) -> tuple[Any, ...]:
        return delete(lambda: [trash.delete(studio.root, name) for name in trash.thrown_away(studio.root)], sure)

    def delete_upload(path: str | None, sure: bool) -> tuple[Any, ...]:
        return delete(lambda: remove_upload(studio, path), sure)

    def throw_away(name: str | None) -> tuple[Any, ...]:
        run = studio.find(name)
        try:
            if run is not None:
                trash.throw_away(run)
        except StudioError as error:
            refuse("Not thrown away", error)
        return shown()

    def put_back(name: str | None) -> tuple[Any, ...]:
        try:
            trash.put_back(studio.root, name or "")
        except StudioError as error:
            refuse("Not put back", error)
            return *shown(), gr.skip()
        return *shown(), name

    card.expand(shown, None, state, **QUIET)
    throw.click(throw_away, in_view, state, **PRIVATE)
    back.click(put_back, thrown, [*state, started], **PRIVATE)
    one.click(delete_run, [thrown, sure], state, **PRIVATE)
    everything.click(empty, sure, state, **PRIVATE)
    upload.click(delete_upload, [brought, sure], state, **PRIVATE)


def remove_upload(studio: Studio, path: str | None) -> None:
    """Remove an upload of the visitor's that no run of theirs is about to read. Raises StudioError."""
    for run, status in studio.queue.unfinished().items():
        if run.folder.parent == studio.root and path in [part.source for part in run.settings.data.parts]:
            raise BusyError(f"Run {run.name} is {status} and reads this file. Wait for it to end, or stop it first.")
    uploads.remove(studio.root, path)
