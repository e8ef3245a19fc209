"""Compare: base and tuned side by side, answering the same question at the same time; what is preferred becomes a pair."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from studio import collected, seal
from studio.chat import Sampling
from studio.errors import SettingsError, StudioError
from studio.preferences.pairs import Message, Pair
from studio.settings import PRACTICE
from studio.ui import form, parts
from studio.ui.studio import PRIVATE, QUIET, Studio, refuse

EMPTY = "Choose a run that has ended, above: base and tuned then answer your questions side by side."
NOT_YET = "This run has no adapter yet. When it is finished or stopped, talk to it here."
WAITING = "Both are answering; the first answer also loads the model …"
ALIKE = "Both answered the same, so neither is better. Ask something else, or write a better answer."
SILENT = "…"
"""Stands for an answer that has no word yet."""
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


def preferred(base: list[Message], tuned: list[Message], side: str, own: str = "") -> Pair:
    """The pair that a person makes of both answers: `side` ("base" or "tuned") is better, or "own" text is better than tuned's.

    Raises StudioError where the two did not answer the same talk.
    """
    if len(base) < 2 or len(tuned) < 2 or SILENT in (base[-1]["content"], tuned[-1]["content"]):
        raise StudioError("There are no two answers yet. Ask both a question first.")
    if side == "own" and not own.strip():
        raise StudioError("Your answer is empty. Write one first.")
    if base[:-1] != tuned[:-1]:
        raise StudioError("Base and tuned have had different talks by now, and a pair needs one question. Start a new chat and ask there.")
    better, worse = {"base": (base[-1], tuned[-1]), "tuned": (tuned[-1], base[-1]),
                     "own": ({"role": "assistant", "content": own.strip()}, tuned[-1])}[side]
    return Pair(tuned[:-1], [better], [worse])


def lead(studio: Studio, name: str | None) -> str:
    """What is compared, or what to do to compare something."""
    run = studio.find(name)
    if run is None:
        return parts.empty(EMPTY)
    if not run.adapter.is_dir():
        return parts.empty(NOT_YET)
    written = seal.trained_with(run)
    template = f" Both read you through the template of the training (seal {written})." if written else ""
    base = "the practice model" if run.settings.model.name == PRACTICE else run.settings.model.name
    return parts.note("info", f"Left: {base} as it was. Right: the same model after run {run.name}.{template}")


def build(studio: Studio, in_view: gr.Dropdown, tab: gr.Tab) -> gr.Timer:
    """The components and wiring of `tab`. Returns the timer by which it looks again."""
    top = gr.HTML(lead(studio, None), elem_id="compare-head", padding=False)
    with gr.Row(visible=False) as talks:  # two empty chats have nothing to tell them apart, to the eye or a screen reader
        left = gr.Chatbot(label="Base", height=420, elem_id="chat-base", buttons=["copy"])
        right = gr.Chatbot(label="Tuned", height=420, elem_id="chat-tuned", buttons=["copy"])
    question = gr.Textbox(label="Your question", elem_id="question", submit_btn="Ask both", **OPEN)
    with gr.Row():
        halt = gr.Button("Stop answering", size="sm", elem_id="stop-answering")
        clear = gr.Button("New chat", size="sm", elem_id="new-chat")
    with gr.Column(visible=False, elem_id="collect") as collect:
        with gr.Row() as either:
            votes = {"base": gr.Button("Base answered better", size="sm", elem_id="prefer-base"),
                     "tuned": gr.Button("Tuned answered better", size="sm", elem_id="prefer-tuned")}
        with gr.Accordion("Neither: write a better answer", open=False):
            own = gr.Textbox(label="Your answer", lines=3, elem_id="own-answer",
                             info="Becomes the better answer, the tuned model's the worse one.")
            votes["own"] = gr.Button("Save the pair", size="sm", elem_id="prefer-own")
        kept = gr.HTML(elem_id="collected", padding=False)
    with gr.Accordion("Sampling", open=False), gr.Row(elem_classes="fields"):
        sampling_fields = {name: gr.Number(value=value, label=label, info=info, precision=0 if isinstance(value, int) else None)
                           for name, (value, label, info) in SAMPLING.items()}

    def ask(name: str | None, text: str, base: list, tuned: list, **chosen: Any) -> Iterator[dict]:
        run = studio.find(name)
        if run is None or not run.adapter.is_dir():
            yield refuse("Nothing to compare", EMPTY if run is None else NOT_YET)
            return
        if not (text or "").strip():
            yield refuse("Not asked", "There is no question. Write one and press Enter.")
            return
        try:
            sampling = Sampling(**chosen)
        except SettingsError as error:
            yield refuse("Not asked", form.in_words(error.problems, {name: label for name, (_, label, _) in SAMPLING.items()}))
            return
        asked = {"role": "user", "content": text}
        base, tuned = [*flat(base), asked], [*flat(tuned), asked]
        # Locked while they answer: a question in between would be asked of a talk that is not complete.
        yield {question: gr.Textbox("", interactive=False, placeholder=WAITING), left: [*base, spoken("")], right: [*tuned, spoken("")],
               talks: gr.Row(visible=True), collect: gr.Column(visible=False), kept: ""}
        alike = False
        try:
            for answers in studio.chat.ask(run, base, tuned, sampling, studio.secrets(run)):
                alike = answers.base == answers.tuned
                yield {left: [*base, spoken(answers.base)], right: [*tuned, spoken(answers.tuned)]}
        except StudioError as error:
            yield {question: gr.Textbox(text, **OPEN), left: base[:-1], right: tuned[:-1], talks: gr.Row(visible=len(base) > 1)}
            refuse("No answer", error)
            return
        yield {question: gr.Textbox(**OPEN), collect: gr.Column(visible=True), either: gr.Row(visible=not alike),
               kept: parts.note("info", ALIKE) if alike else ""}

    def spoken(text: str) -> Message:
        return {"role": "assistant", "content": text or SILENT}

    def afresh() -> dict:
        return {question: gr.Textbox(**OPEN), left: [], right: [], talks: gr.Row(visible=False),
                collect: gr.Column(visible=False), kept: ""}

    chats = [question, left, right, talks, collect, either, kept]

    def vote(name: str | None, base: list, tuned: list, own: str, side: str) -> tuple[str, Any]:
        try:
            count = collected.add(studio.root, preferred(flat(base), flat(tuned), side, own or ""), name or "")
        except StudioError as error:
            return parts.note("warn", f"Not kept. {error}"), gr.skip()
        many = f"{count:,} pair{'s' * (count != 1)} collected"
        return parts.note("good", f"Kept as a pair: {many} so far. Under Data they can be learned from."), ""

    asking = question.submit(ask, [in_view, question, left, right], chats, inputs_kwargs=sampling_fields, concurrency_limit=1, **PRIVATE)
    halt.click(lambda: gr.Textbox(**OPEN), None, question, cancels=[asking], **QUIET)
    clear.click(afresh, None, chats, cancels=[asking], **QUIET)
    in_view.change(afresh, None, chats, cancels=[asking], **QUIET)
    for side, button in votes.items():
        button.click(lambda *given, side=side: vote(*given, side), [in_view, left, right, own], [kept, own], **PRIVATE)
    watch = gr.Timer(2.0)
    for look in (watch.tick, in_view.change, tab.select):
        look(lambda name: lead(studio, name), in_view, top, **QUIET)
    return watch
