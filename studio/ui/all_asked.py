"""All questions that a person keeps, asked of both who are compared, and the answers side by side."""

from collections.abc import Iterator
from typing import Any

import gradio as gr
from gradio.events import Dependency

from studio import questions
from studio.chat import Answers
from studio.errors import StudioError
from studio.ui import news, pairing, parts
from studio.ui.studio import PRIVATE, QUIET, Studio, refuse
from studio.ui.talk import SILENT, Talk

LEAD = ("Asks both every question that you keep, each in a talk of its own, and puts the answers side by side. Each is asked after the "
        "system prompt that it was kept with, else after the one above.")
NONE = "You keep no question yet. Write one above and press Keep this question."
BLIND = "A table names whose answers they are. Untick Blind first."


def build(studio: Studio, pair_fields: list[gr.Dropdown], blind: gr.Checkbox, system: gr.Textbox,
          sampling_fields: dict[str, gr.Number]) -> Dependency:
    """The components and their wiring. Returns the event that asks, so that it can be cancelled."""
    with gr.Accordion("All that you keep, at once", open=False):
        gr.Markdown(LEAD)
        ask = gr.Button("Ask both all of them", size="sm", elem_id="ask-all")
        table = gr.HTML(elem_id="all-answers", padding=False)

    def ask_all(name: str | None, first: str | None, second: str | None, blind: bool, opening: str, **chosen: Any) -> Iterator[Any]:
        try:
            run, pair, sampling = pairing.to_ask(studio, name, first, second, chosen)
            kept, rows = questions.kept(studio.root), []
            if blind or not kept:
                raise StudioError(BLIND if blind else NONE)
            for one in kept:
                answers, asked = Answers(), Talk().asked(one.text, (opening or "") if one.system is None else one.system)
                for answers in studio.chat.ask(run, pair, asked.sides, sampling, studio.secrets(run)):
                    row = (one.text, answers.first or SILENT, answers.second or SILENT)
                    yield parts.table(("Question", *pairing.called(run, pair)), [*rows, row])
                rows.append((one.text, answers.first, answers.second))
        except StudioError as error:
            yield refuse("Not asked", error)

    asking = ask.click(ask_all, [*pair_fields, blind, system], table, inputs_kwargs=sampling_fields, **PRIVATE)
    in_view, first, second = pair_fields
    for event in (news.own(in_view.change).change, first.input, second.input):
        event(lambda: "", None, table, cancels=[asking], **QUIET)
    return asking
