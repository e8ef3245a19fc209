"""Questions offered in Compare, and those that a person keeps to ask of every run."""

from collections.abc import Callable
from typing import Any

import gradio as gr

from studio import questions
from studio.errors import StudioError
from studio.ui import news, pairing, talk
from studio.ui.choices import Dropdown, once_closed
from studio.ui.studio import PRIVATE, QUIET, Studio, refuse
from studio.ui.talk import Talk

LABEL = 160
"""Characters of a question in the list; what is asked is all of it."""


def build(studio: Studio, in_view: gr.Dropdown, tab: gr.Tab, question: gr.Textbox, system: gr.Textbox, said: gr.State) -> None:
    """The components and wiring below the question box; `said` is the talk in which the last question stands."""
    with gr.Row(visible=False, elem_classes="fields") as row:
        offered = Dropdown([], label="Or take one of these", elem_id="offered-questions", scale=3,
                           info="Those that you kept, the run's fixed prompts, and questions of pairs that it never saw.")
        with gr.Column(scale=1, min_width=160):
            keep = gr.Button("Keep this question", size="sm", elem_id="keep-question")
            forget = gr.Button("Forget this question", size="sm", elem_id="forget-question")

    def there(name: str | None) -> list[questions.Question]:
        run = studio.find(name)
        return talk.questions(run, questions.kept(studio.root), pairing.usual_system(studio, run))

    def offer(name: str | None) -> tuple:
        found = there(name)
        return gr.Row(visible=bool(found)), gr.Dropdown([(label(one.text), one.text) for one in found], value=None)

    def take(name: str | None, chosen: str | None) -> tuple[Any, Any, Any]:
        """The chosen question, and its system prompt where it is to be asked after one of its own."""
        if not chosen:
            return (gr.skip(),) * 3
        own = next((one.system for one in there(name) if one.text == chosen), None)
        return chosen, gr.skip() if own is None else own, None

    def change(how: Callable, name: str | None, text: str, opening: str, now: Talk, told: str, wrong: str) -> tuple:
        """Keep or forget what is in the box, or what was asked last."""
        this, after = (text, opening or "") if (text or "").strip() else (now.question, now.system)
        usual = pairing.usual_system(studio, studio.find(name))
        try:
            many = len(how(studio.root, this, None if after == usual else after))
        except StudioError as error:
            refuse(wrong, error)
            return gr.skip(), gr.skip()
        gr.Info(f"{told} You keep {many:,} question{'s' * (many != 1)}.")
        return offer(name)

    offered.input(take, [in_view, offered], [question, system, offered], **QUIET)
    news.own(tab.select, in_view.change).change(offer, in_view, [row, offered], **once_closed(offered), **QUIET)
    for button, how, told, wrong in ((keep, questions.keep, "Kept.", "Not kept"),
                                     (forget, questions.forget, "Forgotten.", "Not forgotten")):
        button.click(lambda *given, how=how, told=told, wrong=wrong: change(how, *given, told, wrong),
                     [in_view, question, system, said], [row, offered], **PRIVATE)


def label(text: str) -> str:
    """A question as one short line."""
    line = " ".join(text.split())
    return line if len(line) <= LABEL else f"{line[:LABEL]} …"
