"""Compare: base and tuned side by side, answering the same question at the same time from one loaded model."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from studio.chat import Sampling
from studio.errors import StudioError
from studio.preferences.pairs import Message
from studio.ui import parts
from studio.ui.studio import QUIET, Studio

EMPTY = "Choose a run that has ended, above: base and tuned then answer your questions side by side."
NOT_YET = "This run has no adapter yet. When it is finished or stopped, talk to it here."
WAITING = "Both are answering; the first answer also loads the model …"
OPEN = {"interactive": True, "placeholder": "Ask both the same"}
"""The question box while it takes a question."""

SAMPLING = {"temperature": (0.7, "Temperature", "0 takes the likeliest word each time; higher is more varied."),
            "top_p": (0.9, "Top p", "Draws only from the likeliest words that make up this share."),
            "max_new_tokens": (200, "Longest answer", "In tokens, about three quarters of a word each.")}


def flat(history: list[dict[str, Any]]) -> list[Message]:
    """A chatbot's messages, which hold content blocks, as plain ones."""
    return [{"role": turn["role"], "content": text_of(turn["content"])} for turn in history]


def text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(block.get("text", "") for block in content if isinstance(block, dict))


def lead(studio: Studio, name: str | None) -> str:
    """What is compared, or what to do to compare something."""
    run = studio.find(name)
    if run is None:
        return parts.empty(EMPTY)
    if not run.adapter.is_dir():
        return parts.empty(NOT_YET)
    return parts.note("info", f"Left: {run.settings.model.name} as it was. Right: the same model after run {run.name}.")


def build(studio: Studio, in_view: gr.Dropdown) -> None:
    """The tab's components and wiring."""
    top = gr.HTML(lead(studio, None), elem_id="compare-head", padding=False)
    with gr.Row(visible=False) as talks:  # two empty chats have nothing to tell them apart, to the eye or a screen reader
        left = gr.Chatbot(label="Base", height=420, elem_id="chat-base", buttons=["copy"])
        right = gr.Chatbot(label="Tuned", height=420, elem_id="chat-tuned", buttons=["copy"])
    question = gr.Textbox(label="Your question", elem_id="question", submit_btn="Ask both", **OPEN)
    with gr.Row():
        halt = gr.Button("Stop answering", size="sm", elem_id="stop-answering")
        clear = gr.Button("New chat", size="sm", elem_id="new-chat")
    with gr.Accordion("Sampling", open=False), gr.Row(elem_classes="fields"):
        sampling = {name: gr.Number(value=value, label=label, info=info, precision=0 if isinstance(value, int) else None)
                    for name, (value, label, info) in SAMPLING.items()}

    def ask(name: str | None, text: str, base: list, tuned: list, **chosen: Any) -> Iterator[tuple]:
        run = studio.find(name)
        if run is None or not run.adapter.is_dir():
            raise gr.Error(EMPTY if run is None else NOT_YET, title="Nothing to compare")
        if not (text or "").strip():
            raise gr.Error("There is no question. Write one and press Enter.", title="Not asked")
        asked = {"role": "user", "content": text}
        base, tuned = [*flat(base), asked], [*flat(tuned), asked]
        # Locked while they answer: a question in between would be asked of a talk that is not complete.
        locked, shown = gr.Textbox("", interactive=False, placeholder=WAITING), gr.Row(visible=True)
        yield locked, [*base, spoken("")], [*tuned, spoken("")], shown
        try:
            for answers in studio.chat.ask(run, base, tuned, Sampling(**chosen), studio.queue.secrets(run)):
                yield gr.skip(), [*base, spoken(answers.base)], [*tuned, spoken(answers.tuned)], gr.skip()
        except StudioError as error:
            yield gr.Textbox(text, **OPEN), base[:-1], tuned[:-1], gr.Row(visible=len(base) > 1)
            raise gr.Error(str(error), title="No answer") from error
        yield gr.Textbox(**OPEN), gr.skip(), gr.skip(), gr.skip()

    def spoken(text: str) -> Message:
        return {"role": "assistant", "content": text or "…"}

    def afresh() -> tuple:
        return gr.Textbox(**OPEN), [], [], gr.Row(visible=False)

    chats = [question, left, right, talks]
    asking = question.submit(ask, [in_view, question, left, right], chats, inputs_kwargs=sampling,
                             concurrency_limit=1, api_visibility="private", show_progress="hidden")
    halt.click(lambda: gr.Textbox(**OPEN), None, question, cancels=[asking], **QUIET)
    clear.click(afresh, None, chats, cancels=[asking], **QUIET)
    in_view.change(afresh, None, chats, cancels=[asking], **QUIET)
    in_view.change(lambda name: lead(studio, name), in_view, top, **QUIET)
    gr.Timer(2.0).tick(lambda name: lead(studio, name), in_view, top, **QUIET)
