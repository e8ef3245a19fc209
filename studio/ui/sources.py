"""Where the pairs come from: the practice pairs, a file, the Hub, pairs collected in Compare, or an earlier run's data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from studio import collected, runs, uploads
from studio.catalogue import Catalogue
from studio.errors import StudioError
from studio.runs import Run
from studio.settings import PRACTICE
from studio.ui import form, news, source_card, token_field
from studio.ui.choices import Dropdown, Radio, once_closed, with_choices
from studio.ui.source_card import SourceCard
from studio.ui.studio import GOOD_ENOUGH, PRIVATE, QUIET, TEXTS, Studio, refuse

FILE_TYPES = [".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".xlsx"]
RUNS_LISTED = 50
NOT_USED = "It is no longer there: the file was removed, or the run thrown away. Choose another one from the list."


@dataclass(frozen=True)
class Sources:
    """The fields of the data section, the Hub token, and whose choices the form shows."""

    fields: form.Fields
    token: gr.Textbox
    card: SourceCard


def with_source(also: str, path: Path) -> str:
    """The further sources with one more at the end."""
    return "\n".join(filter(None, ((also or "").strip(), str(path))))


def used_before(root: Path, earlier: list[Run]) -> list[tuple[str, str]]:
    """What can be taken again, label and value: uploaded files by their path, the data of earlier runs by the run's name."""
    found = [(f"{path.name} (uploaded)", str(path)) for path in uploads.kept(root)]
    for run in earlier[:RUNS_LISTED]:
        try:
            source = run.settings.data.source
        except StudioError:  # a folder of another version
            continue
        found.append((f"{Path(source).name if source.startswith('/') else source}, as run {run.name} used it", run.name))
    return found


def taken(studio: Studio, name: str, fields: form.Fields) -> list[Any]:
    """Values of these fields and of a SourceCard: an uploaded file as the source, or all that a run chose. Raises StudioError."""
    if name.startswith("/"):
        return [*(name if field == "data.source" else gr.skip() for field in fields), *[gr.skip()] * 3]
    settings = runs.find(studio.root, name).settings
    told = source_card.taken_over(studio, settings, f"Data is now as run {name} chose it, its edits and columns included.")
    return [*form.updates(settings, fields), *told]


def offered(found: list[tuple[str, int]]) -> gr.Radio:
    """What the Hub has under the typed name."""
    names = [(f"{name} · {downloads:,} downloads", name) for name, downloads in found]
    return gr.Radio(names, value=None, visible=bool(names))


def build(studio: Studio, defaults: dict[str, Any]) -> Sources:
    """The components and their wiring."""
    catalogue = Catalogue()
    fields = form.fields("data", basic=True, values=defaults)
    hub = Radio([], label="On the Hub", visible=False, elem_id="hub-datasets")
    with gr.Row():
        practice = gr.Button("Use the practice pairs", size="sm")
        upload = gr.UploadButton("Upload a file", file_types=FILE_TYPES, size="sm", elem_id="upload-pairs")
        voted = gr.Button(visible=False, size="sm", elem_id="use-collected")
        mix = gr.UploadButton("Mix in another file", file_types=FILE_TYPES, size="sm", elem_id="mix-pairs")
    card = source_card.build()
    again = Dropdown([], label="Used before", visible=False, elem_id="used-before",
                     info="A file that was uploaded, or all that an earlier run chose under Data, its edits included.")
    with gr.Accordion("Further sources, subset, split, revision, columns and edits", open=False, elem_id=form.fold("data")):
        fields |= form.fields("data", basic=False, values=defaults)
        token = token_field.build("data-token", "Only for private or gated datasets. Kept in memory, never written.")
    source, also = fields["data.source"], fields["data.also"]

    def search(text: str, token: str) -> gr.Radio:
        # A user who is not at this machine does not learn which files it has.
        known = text.strip() == PRACTICE or text.strip().startswith("/") or (not studio.who().name and Path(text.strip()).exists())
        return offered([] if known else catalogue.like(text, token or None))

    def choose(name: str | None) -> tuple[Any, gr.Radio]:
        return (name, gr.Radio(visible=False)) if name else (gr.skip(), gr.skip())

    def earlier(within: float = 0.0) -> list[Run]:
        return [entry.run for entry in studio.entries(within) if not entry.reason and entry.run.folder.parent == studio.root]

    def look() -> str:
        return news.digest((collected.count(studio.root), tuple(used_before(studio.root, earlier(GOOD_ENOUGH)))))

    def available(chosen: str | None) -> tuple[Any, ...]:
        count, names = collected.count(studio.root), used_before(studio.root, earlier(GOOD_ENOUGH))
        return (gr.Button(f"Use the {count:,} pair{'s' * (count != 1)} from Compare", visible=count > 0),
                with_choices(names, chosen, None, visible=bool(names)))

    def take(name: str | None) -> list[Any]:
        try:
            if name and name not in [value for _, value in used_before(studio.root, earlier())]:
                raise StudioError(NOT_USED)
            return taken(studio, name, fields) if name else [gr.skip()] * (len(fields) + 3)
        except StudioError as error:
            return refuse("Not taken over", error)

    form.fill(practice.click, lambda: PRACTICE, None, source, **QUIET)
    form.fill(voted.click, lambda: str(collected.path(studio.root)), None, source, **QUIET)
    form.fill(upload.upload, lambda path: str(uploads.keep(studio.root, Path(path))), upload, source, **PRIVATE)
    form.fill(mix.upload, lambda path, also: with_source(also, uploads.keep(studio.root, Path(path))), [mix, also], also, **PRIVATE)
    source.input(search, [source, token], hub, trigger_mode="always_last", concurrency_limit=4, **PRIVATE)
    form.fill(hub.input, choose, hub, [source, hub], trigger_mode="always_last", **QUIET)
    form.fill(again.input, take, again, [*fields.values(), *card.outputs], trigger_mode="always_last", **PRIVATE)
    seen = news.build()
    gr.Timer(5.0).tick(look, None, seen, **QUIET, **TEXTS)
    seen.change(available, again, [voted, again], **once_closed(again), **QUIET)
    return Sources(fields, token, card)
