"""Data: which pairs to learn from, what is wrong with them and one click against it, and every pair to be looked at."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.ui import doctor_card, export_card, form, pair_browser, sources
from studio.ui.complaints_card import Complaints
from studio.ui.source_card import SourceCard
from studio.ui.studio import Studio

INTRO = "Where the pairs of better and worse answers come from. Everything you choose here is used when you start a run under Train."


@dataclass(frozen=True)
class DataTab:
    """The fields of the data section, which Train starts runs with, whose choices they hold, and the place below that `complete` fills."""

    fields: form.Fields
    token: gr.Textbox
    source: SourceCard
    below: gr.Column


def build(studio: Studio, defaults: dict[str, Any]) -> DataTab:
    """The sources. What looks at them needs the fields of Train too and comes with `complete`."""
    gr.Markdown(INTRO)
    found = sources.build(studio, defaults)
    with gr.Column() as below:
        pass
    return DataTab(found.fields, found.token, found.card, below)


def complete(studio: Studio, tab: DataTab, everything: form.Fields, complaints: Complaints) -> None:
    """Add what examines the pairs for the model and the maximum length that the other sections choose."""
    with tab.below:
        doctor = doctor_card.build(studio, everything, tab.token, tab.source, complaints)
        pair_browser.build(studio, doctor, everything, tab.token)
        export_card.build(studio, doctor, tab.token)
