"""Questions offered in Compare, and those that a person keeps to ask of every run."""

from collections.abc import Callable
from typing import Any

import gradio as gr

from studio import questions
from studio.errors import StudioError
from studio.ui import talk
from studio.ui.studio import PRIVATE, QUIET, Studio, refuse


def build(studio: Studio, in_view: gr.Dropdown, tab: gr.Tab, question: gr.Textbox, asked: gr.Chatbot) -> None:
    """The components and wiring below the question box; `asked` is a chat in which the last question stands."""
    with gr.Row(visible=False, elem_classes="fields") as row:
        offered = gr.Dropdown([], label="Or take one of these", elem_id="offered-questions", scale=3,
                              info="Those that you kept, the run's fixed prompts, and questions of pairs that it never saw.")
        with gr.Column(scale=1, min_width=160):
            keep = gr.Button("Keep this question", size="sm", elem_id="keep-question")
            forget = gr.Button("Forget this question", size="sm", elem_id="forget-question")

    def offer(name: str | None) -> tuple:
        found = talk.questions(studio.find(name), questions.kept(studio.root))
        return gr.Row(visible=bool(found)), gr.Dropdown(found, value=None)

    def take(chosen: str | None) -> tuple[Any, Any]:
        return (chosen, None) if chosen else (gr.skip(), gr.skip())

    def change(how: Callable, name: str | None, text: str, history: list, told: str, wrong: str) -> tuple:
        """Keep or forget what is in the box, or what was asked last."""
        said = [turn["content"] for turn in talk.flat(history) if turn["role"] == "user"]
        this = (text or "").strip() or (said[-1] if said else "")
        try:
            many = len(how(studio.root, this))
        except StudioError as error:
            refuse(wrong, error)
            return gr.skip(), gr.skip()
        gr.Info(f"{told} You keep {many:,} question{'s' * (many != 1)}.")
        return offer(name)

    offered.input(take, offered, [question, offered], **QUIET)
    for event in (tab.select, in_view.change):
        event(offer, in_view, [row, offered], **QUIET)
    for button, how, told, wrong in ((keep, questions.keep, "Kept.", "Not kept"),
                                     (forget, questions.forget, "Forgotten.", "Not forgotten")):
        button.click(lambda *given, how=how, told=told, wrong=wrong: change(how, *given, told, wrong),
                     [in_view, question, asked], [row, offered], **PRIVATE)
