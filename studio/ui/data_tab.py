"""Data: which pairs to learn from, what is wrong with them and one click against it, and every pair to be looked at."""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from studio import examination, jobs, preview
from studio.errors import SettingsError, StudioError
from studio.examination import Shelf
from studio.settings import PRACTICE
from studio.summary import Summary
from studio.ui import examined, form, parts
from studio.ui.studio import PRIVATE, QUIET, Studio

FILE_TYPES = [".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".xlsx"]
FIXES = 8
"""Findings that get a button; the gravest come first."""

INTRO = "Where the pairs of better and worse answers come from. Everything you choose here is used when you start a run under Train."
EMPTY = "Not examined yet. Press “Examine the pairs” to see what the model will learn from and what is wrong with it."
CHANGED = "These choices have not been examined yet. Press “Examine the pairs”."


@dataclass(frozen=True)
class DataTab:
    """The fields of the data section, which Train starts runs with; `watch` needs the fields of all sections."""

    fields: form.Fields
    parts: "Parts"


@dataclass(frozen=True)
class Parts:
    """The tab's other components."""

    token: gr.Textbox
    go: gr.Button
    cancel: gr.Button
    undo: gr.Button
    fixes: list[gr.Button]
    seen: gr.HTML
    browser: gr.Column
    number: gr.Number
    search: gr.Textbox
    pair: gr.HTML
    read: gr.Button
    tokens: gr.HTML


def keep(root: Path, uploaded: str) -> Path:
    """Copy an upload beside the runs, under its content's hash, where it outlives the page's temporary files."""
    source = Path(uploaded)
    with open(source, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    kept = root / ".uploads" / digest / source.name
    kept.parent.mkdir(parents=True, exist_ok=True)
    if not kept.exists():
        draft = kept.with_name(f".{kept.name}")
        shutil.copyfile(source, draft)
        draft.replace(kept)
    return kept


# --- what is shown ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """The state of the examination of some values: its HTML, whether it is under way, and the edits that it offers."""

    html: str
    at_work: bool = False
    offers: tuple[tuple[str, str], ...] = ()
    pairs: int = 0


def view(root: Path, values: dict[str, Any]) -> View:
    """The examination of the form's values as it stands."""
    try:
        job = examination.job_of(root, form.settings_of(values))
    except SettingsError as error:
        return View(parts.note("bad", " ".join(error.problems.values())))
    said = jobs.events.read(job.log)
    status = jobs.status(job, said)
    if status in jobs.ALIVE:
        return View(examined.at_work(Summary(said)), at_work=True)
    found = examination.found(job) if status == "finished" else None
    if found:
        shelf = Shelf(job.folder)
        offers = tuple((finding.edit, finding.button) for finding in found.findings if finding.edit)[:FIXES]
        return View(examined.shown(found, shelf), offers=offers, pairs=len(shelf))
    if status in ("failed", "crashed"):
        return View(parts.note("bad", Summary(said).failure or "The examination ended without a word, most likely because the memory "
                                                               "was full. Close other programs, then examine again."))
    return View(parts.empty(CHANGED if (root / ".examined").exists() else EMPTY))


def looked_up(root: Path, values: dict[str, Any], number: int | None, search: str, after: int) -> tuple[int, str]:
    """The place of the wanted pair and the pair as HTML: by its row's number, or the next one that holds the words."""
    shelf = Shelf(examination.job_of(root, form.settings_of(values)).folder)
    if not len(shelf):
        return -1, ""
    place = shelf.search(search.strip(), after) if search.strip() else shelf.place_of(int(number or 0))
    if place is None:
        words = f"No pair holds “{search.strip()}”." if search.strip() else (
            f"Row {int(number or 0):,} is no pair, or not among those that can be looked at. The rows go from "
            f"{shelf.numbers[0]:,} to {shelf.numbers[-1]:,}.")
        return after, parts.note("info", words)
    return place, examined.numbered_pair(shelf[place])


def as_read(root: Path, values: dict[str, Any], place: int, token: str) -> str:
    """The pair at a place token by token, or why it cannot be shown so."""
    settings = form.settings_of(values)
    shelf = Shelf(examination.job_of(root, settings).folder)
    if not 0 <= place < len(shelf):
        return parts.note("info", "Choose a row first: enter its number, or find it by its words.")
    try:
        return examined.as_read(preview.look(settings, shelf[place], token or None))
    except StudioError as error:
        return parts.note("bad", str(error))


def with_edit(edits: str, edit: str) -> str:
    """The edits with one more at the end."""
    return "; ".join(filter(None, (edits.strip().rstrip(";").strip(), edit)))


def without_last(edits: str) -> str:
    """The edits without the last one."""
    return "; ".join(part.strip() for part in edits.strip().rstrip(";").split(";")[:-1])


# --- the tab ----------------------------------------------------------------------------------------------------------


def build(studio: Studio, defaults: dict[str, Any]) -> DataTab:
    """The tab's components, and what they do alone."""
    gr.Markdown(INTRO)
    fields = form.fields("data", basic=True, values=defaults)
    with gr.Row():
        practice = gr.Button("Use the practice pairs", size="sm")
        upload = gr.UploadButton("Upload a file", file_types=FILE_TYPES, size="sm")
    with gr.Accordion("Subset, split, revision, columns and edits", open=False):
        fields |= form.fields("data", basic=False, values=defaults)
        token = gr.Textbox(label="Hub token", info="Only for private or gated datasets. Kept in memory, never written.",
                           type="password", elem_id="data-token")
    with gr.Row():
        go = gr.Button("Examine the pairs", variant="primary", elem_id="examine")
        cancel = gr.Button("Cancel", visible=False, elem_id="cancel-examination")
    with gr.Row(elem_id="fixes"):
        fixes = [gr.Button(visible=False, size="sm", elem_id=f"fix-{place}") for place in range(FIXES)]
        undo = gr.Button("Undo the last edit", visible=False, size="sm", elem_id="undo-edit")
    seen = gr.HTML(parts.empty(EMPTY), elem_id="examination", padding=False)
    with gr.Column(visible=False, elem_classes="browser") as browser:
        with gr.Row():
            number = gr.Number(label="Row", precision=0, value=1, minimum=0, info="Press Enter to see that row.", elem_id="pair-row")
            search = gr.Textbox(label="Find", info="Press Enter for the next pair that holds these words.", elem_id="pair-search")
        pair = gr.HTML(elem_id="pair", padding=False)
        read = gr.Button("Show it as the model reads it", size="sm", elem_id="as-read")
        tokens = gr.HTML(elem_id="pair-tokens", padding=False)
    practice.click(lambda: PRACTICE, None, fields["data.source"], **QUIET)
    upload.upload(lambda path: str(keep(studio.root, path)), upload, fields["data.source"], **PRIVATE)
    return DataTab(fields, Parts(token, go, cancel, undo, fixes, seen, browser, number, search, pair, read, tokens))


def wire(studio: Studio, tab: DataTab, everything: form.Fields) -> None:
    """Let the tab examine for the model and the maximum length that the other sections choose."""
    at, fields = tab.parts, tab.fields
    watch, place, offered = gr.Timer(1.0), gr.State(-1), gr.State(())
    shown = [at.seen, watch, at.cancel, at.undo, at.browser, offered, *at.fixes]

    def show(**values: Any) -> list[Any]:
        now = view(studio.root, values)
        buttons = [gr.Button(now.offers[i][1], visible=True) if i < len(now.offers) else gr.Button(visible=False) for i in range(FIXES)]
        return [now.html, gr.Timer(active=now.at_work), gr.Button(visible=now.at_work),
                gr.Button(visible=bool(values["data.edits"]) and not now.at_work), gr.Column(visible=now.pairs > 0), now.offers, *buttons]

    def begin(token: str, **values: Any) -> list[Any]:
        try:
            examination.begin(studio.root, form.settings_of(values), {"token": token} if token else {})
        except StudioError as error:
            raise gr.Error(str(error), title="Not examined") from error
        return show(**values)

    def stop(**values: Any) -> None:
        jobs.stop(examination.job_of(studio.root, form.settings_of(values)))

    def look(number: int | None, **values: Any) -> tuple[int, str]:
        return looked_up(studio.root, values, number, "", -1)

    def find(search: str, place: int, **values: Any) -> tuple[int, str]:
        return looked_up(studio.root, values, None, search, place)

    def read(token: str, place: int, **values: Any) -> str:
        return as_read(studio.root, values, place, token)

    def check(token: str, **values: Any) -> list[dict]:
        return [gr.validate(True, ""), *form.check(**values)]

    asking = {"inputs": at.token, "inputs_kwargs": everything, "outputs": shown}
    at.go.click(begin, **asking, validator=check, **PRIVATE)
    for place_, button in enumerate(at.fixes):
        button.click(lambda edits, offers, at=place_: with_edit(edits, offers[at][0]), [fields["data.edits"], offered],
                     fields["data.edits"], **PRIVATE).then(begin, **asking, **PRIVATE)
    at.undo.click(without_last, fields["data.edits"], fields["data.edits"], **PRIVATE).then(begin, **asking, **PRIVATE)
    at.cancel.click(stop, inputs_kwargs=everything, **PRIVATE)
    watch.tick(show, inputs_kwargs=everything, outputs=shown, **QUIET)
    gr.on([field.change for field in fields.values()], show, inputs_kwargs=everything, outputs=shown, trigger_mode="always_last", **QUIET)
    at.number.submit(look, inputs=at.number, inputs_kwargs=everything, outputs=[place, at.pair], **PRIVATE)
    at.read.click(read, inputs=[at.token, place], inputs_kwargs=everything, outputs=at.tokens, concurrency_limit=2,
                  api_visibility="private", show_progress="minimal")
    at.pair.change(lambda: "", None, at.tokens, **QUIET)
    at.search.submit(find, inputs=[at.search, place], inputs_kwargs=everything, outputs=[place, at.pair], **PRIVATE)
