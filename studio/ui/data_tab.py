"""Data: which pairs to learn from, and a look at the first of them."""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from studio.errors import SettingsError, StudioError
from studio.preview import Preview, look
from studio.settings import PRACTICE, DataSettings
from studio.ui import form, parts
from studio.ui.studio import PRIVATE, QUIET, Studio

FILE_TYPES = [".jsonl", ".json", ".csv", ".parquet"]
SHOWN = 5
"""Pairs shown at first; more make the page long before they make it clearer."""

INTRO = "Where the pairs of better and worse answers come from. Everything you choose here is used when you start a run under Train."
EMPTY = "No pairs looked at yet. Press “Look at the pairs” to see what the model will learn from."


@dataclass(frozen=True)
class DataTab:
    """The fields of the data section, which Train starts runs with."""

    fields: form.Fields


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


def looked_at(values: dict[str, Any], token: str) -> str:
    """The first pairs as HTML, or the reason why there are none."""
    try:
        settings = form.settings_of(values).data
        return shown(settings, look(settings, token or None, first=SHOWN))
    except SettingsError as error:
        return parts.note("bad", " ".join(error.problems.values()))
    except StudioError as error:
        return parts.note("bad", str(error))


def shown(settings: DataSettings, found: Preview) -> str:
    """What was recognised, what was left out, and the first pairs as bubbles."""
    name = "The practice pairs" if settings.source == PRACTICE else Path(settings.source).name
    held_out = round(found.usable * settings.held_out)
    told = f"{name}: {found.counts} {found.columns} {held_out:,} of them will be held out to measure honestly."
    return parts.note("good", told) + "".join(
        parts.pair_card(pair["prompt"], pair["chosen"], pair["rejected"]) for pair in found.pairs)


def build(studio: Studio, defaults: dict[str, Any]) -> DataTab:
    """The tab's components and wiring."""
    gr.Markdown(INTRO)
    fields = form.fields("data", basic=True, values=defaults)
    with gr.Row():
        practice = gr.Button("Use the practice pairs", size="sm")
        upload = gr.UploadButton("Upload a file", file_types=FILE_TYPES, size="sm")
    with gr.Accordion("Subset, split, revision and columns", open=False):
        fields |= form.fields("data", basic=False, values=defaults)
        token = gr.Textbox(label="Hub token", info="Only for private or gated datasets. Kept in memory, never written.",
                           type="password", elem_id="data-token")
    go = gr.Button("Look at the pairs", variant="primary", elem_id="look")
    seen = gr.HTML(parts.empty(EMPTY), elem_id="pairs", padding=False)

    source = fields["data.source"]
    practice.click(lambda: PRACTICE, None, source, **QUIET)
    upload.upload(lambda path: str(keep(studio.root, path)), upload, source, **PRIVATE)
    source.change(lambda: parts.empty(EMPTY), None, seen, **QUIET)

    def look_now(token: str, **values: Any) -> str:
        return looked_at(values, token)

    go.click(look_now, inputs=token, inputs_kwargs=fields, outputs=seen, concurrency_limit=2,
             api_visibility="private", show_progress="minimal")
    return DataTab(fields)
