"""Compare: base and tuned side by side, answering the same question at the same time, openly or blind; what is preferred becomes a pair."""

import json
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, get_args

import gradio as gr

from studio import collected, jobs, seal, votes
from studio.chat import Answers, Sampling
from studio.errors import SettingsError, StudioError
from studio.preferences.pairs import Message, Pair
from studio.runs import Run
from studio.settings import PRACTICE
from studio.ui import form, parts
from studio.ui.seats import Seats, Side
from studio.ui.studio import PRIVATE, QUIET, Studio, refuse

SIDES: tuple[Side, ...] = get_args(Side)
EMPTY = "Choose a run that has ended, above: base and tuned then answer your questions side by side."
NOT_YET = "This run has no adapter yet. When it is finished or stopped, talk to it here."
WAITING = "Both are answering; the first answer also loads the model …"
ALIKE = "Both answered the same, so neither is better. Ask something else, or write a better answer."
CHOSEN = {"base": "You preferred the base's answer.", "tuned": "You preferred the tuned answer.", "neither": "You saw no difference."}
QUESTIONS, LONGEST_QUESTION, LOOKED_THROUGH = 30, 300, 500
"""Questions offered, characters of each, and held-out pairs among which they are looked for."""
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


def refuse_before_both_answered(base: list[Message], tuned: list[Message]) -> None:
    """Raises StudioError where there is nothing to prefer yet."""
    if len(base) < 2 or len(tuned) < 2 or SILENT in (base[-1]["content"], tuned[-1]["content"]):
        raise StudioError("There are no two answers yet. Ask both a question first.")


def preferred(base: list[Message], tuned: list[Message], who: str, own: str = "") -> Pair:
    """The pair that a person makes of both answers: the one of `who` ("base" or "tuned") is better, or their "own" than tuned's.

    Raises StudioError where the two did not answer the same talk.
    """
    refuse_before_both_answered(base, tuned)
    if who == "own" and not own.strip():
        raise StudioError("Your answer is empty. Write one first.")
    if base[:-1] != tuned[:-1]:
        raise StudioError("Base and tuned have had different talks by now, and a pair needs one question. Start a new chat and ask there.")
    better, worse = {"base": (base[-1], tuned[-1]), "tuned": (tuned[-1], base[-1]),
                     "own": ({"role": "assistant", "content": own.strip()}, tuned[-1])}[who]
    return Pair(tuned[:-1], [better], [worse])


def lead(studio: Studio, name: str | None, blind: bool = False) -> str:
    """What is compared, or what to do to compare something."""
    run = studio.find(name)
    if run is None:
        return parts.empty(EMPTY)
    if not run.adapter.is_dir():
        return parts.empty(NOT_YET)
    written = seal.trained_with(run)
    template = f" Both read you through the template of the training (seal {written})." if written else ""
    base = "the practice model" if run.settings.model.name == PRACTICE else run.settings.model.name
    tuned = f"the same model after run {run.name}"
    told = (f"One of them is {base} as it was, the other {tuned}. Which is which is drawn for each talk, and told when you have voted."
            if blind else f"Left: {base} as it was. Right: {tuned}.")
    return parts.note("info", told + template)


def tally(studio: Studio, run: Run | None) -> str:
    """The blind votes on a run so far; nothing while there are none."""
    found = votes.tally(run, studio.said(jobs.of(run))) if run is not None else votes.Tally()
    return parts.note("info", found.in_words()) if found.votes else ""


def questions(run: Run | None) -> list[str]:
    """What to ask of a run without thinking: its fixed prompts, then short questions of held-out pairs, which training never saw."""
    if run is None or not run.adapter.is_dir():
        return []
    found = [line.strip() for line in run.settings.evaluation.prompts.splitlines() if line.strip()]
    with suppress(OSError, ValueError, KeyError, TypeError), open(run.held_out, encoding="utf-8") as rows:
        for row in islice(rows, LOOKED_THROUGH):
            prompt = json.loads(row)["prompt"]
            if len(prompt) == 1 and 0 < len(prompt[0]["content"]) <= LONGEST_QUESTION:
                found.append(prompt[0]["content"])
    return list(dict.fromkeys(found))[:QUESTIONS]


def shown(answers: Answers, before: list[list[Message]], seats: Seats, together: bool) -> list[list[Message]]:
    """Both talks, left and right, with the answers so far behind what was `before`.

    Two that answer in turn would tell by it which is which: while that is hidden, both are silent until both are done.
    """
    if seats.hidden and not together and not answers.done:
        answers = Answers()
    said = seats.sorted(answers.base, answers.tuned)
    return [[*talk, {"role": "assistant", "content": text or SILENT}] for talk, text in zip(before, said, strict=True)]


def build(studio: Studio, in_view: gr.Dropdown, tab: gr.Tab) -> gr.Timer:
    """The components and wiring of `tab`. Returns the timer by which it looks again."""
    top = gr.HTML(lead(studio, None), elem_id="compare-head", padding=False)
    blind = gr.Checkbox(False, label="Blind", elem_id="blind", interactive=True,
                        info="Hides whose answer is whose until you have voted, and counts your votes with the run.")
    with gr.Row(visible=False) as talks:  # two empty chats have nothing to tell them apart, to the eye or a screen reader
        chats = {side: gr.Chatbot(label=Seats().label(side), height=420, elem_id=f"chat-{side}", buttons=["copy"]) for side in SIDES}
    question = gr.Textbox(label="Your question", elem_id="question", submit_btn="Ask both", **OPEN)
    offered = gr.Dropdown([], label="Or take one of these", visible=False, elem_id="offered-questions",
                          info="The run's fixed prompts, and questions of pairs that it never saw.")
    with gr.Row():
        halt = gr.Button("Stop answering", size="sm", elem_id="stop-answering")
        clear = gr.Button("New chat", size="sm", elem_id="new-chat")
    with gr.Column(visible=False, elem_id="collect") as collect:
        with gr.Row() as either:
            better = {side: gr.Button(Seats().button(side), size="sm", elem_id=f"prefer-{side}") for side in SIDES}
            neither = gr.Button("No difference", size="sm", visible=False, elem_id="prefer-neither")
        with gr.Accordion("Neither: write a better answer", open=False):
            own = gr.Textbox(label="Your answer", lines=3, elem_id="own-answer",
                             info="Becomes the better answer, the tuned model's the worse one.")
            save = gr.Button("Save the pair", size="sm", elem_id="prefer-own")
        kept = gr.HTML(elem_id="collected", padding=False)
    counted = gr.HTML(elem_id="votes", padding=False)
    with gr.Accordion("Sampling", open=False), gr.Row(elem_classes="fields"):
        sampling_fields = {name: gr.Number(value=value, label=label, info=info, precision=0 if isinstance(value, int) else None)
                           for name, (value, label, info) in SAMPLING.items()}
    seated = gr.State(Seats())
    talk = [question, *chats.values(), talks, collect, either, kept, seated, *better.values(), neither]

    def seat(seats: Seats, **said: list[Message]) -> dict:
        """Let everything show who sits where; and what was said there, if that is handed over."""
        return {seated: seats, neither: gr.Button(visible=seats.blind),
                **{better[side]: gr.Button(seats.button(side)) for side in SIDES},
                **{chats[side]: gr.Chatbot(label=seats.label(side), **({"value": said[side]} if said else {})) for side in SIDES}}

    def ask(name: str | None, text: str, seats: Seats, left: list, right: list, **chosen: Any) -> Iterator[dict]:
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
        if seats.blind and (seats.told or not left):
            seats, left, right = Seats.drawn(), [], []
        before = [[*flat(talk), {"role": "user", "content": text}] for talk in (left, right)]

        def so_far(answers: Answers) -> list[list[Message]]:
            return shown(answers, before, seats, together=bool(studio.chat.ready and studio.chat.ready.together))

        # Locked while they answer: a question in between would be asked of a talk that is not complete.
        yield seat(seats, **dict(zip(SIDES, so_far(Answers()), strict=True))) | {
            question: gr.Textbox("", interactive=False, placeholder=WAITING), talks: gr.Row(visible=True),
            collect: gr.Column(visible=False), kept: ""}
        alike = False
        try:
            for answers in studio.chat.ask(run, *seats.sorted(*before), sampling, studio.secrets(run)):
                alike = answers.base == answers.tuned
                yield dict(zip(chats.values(), so_far(answers), strict=True))
        except StudioError as error:
            yield {question: gr.Textbox(text, **OPEN), talks: gr.Row(visible=len(before[0]) > 1),
                   **{chats[side]: talk[:-1] for side, talk in zip(SIDES, before, strict=True)}}
            refuse("No answer", error)
            return
        yield {question: gr.Textbox(**OPEN), collect: gr.Column(visible=True), either: gr.Row(visible=not alike),
               kept: parts.note("info", ALIKE) if alike else ""}

    def afresh(blind: bool) -> dict:
        return seat(Seats(blind), left=[], right=[]) | {question: gr.Textbox(**OPEN), talks: gr.Row(visible=False),
                                                        collect: gr.Column(visible=False), kept: ""}

    def keep(pair: Pair, name: str | None) -> str:
        """Keep a pair. Returns how many there are now, in words. Raises StudioError."""
        count = collected.add(studio.root, pair, name or "")
        many = f"{count:,} pair{'s' * (count != 1)} collected"
        return f"Kept as a pair: {many} so far. Under Data they can be learned from."

    def write(name: str | None, seats: Seats, left: list, right: list, text: str) -> tuple[str, Any]:
        """Keep the person's own answer as the better one."""
        try:
            told = keep(preferred(*seats.sorted(flat(left), flat(right)), "own", text or ""), name)
        except StudioError as error:
            return parts.note("warn", f"Not kept. {error}"), gr.skip()
        return parts.note("good", told), ""

    def prefer(name: str | None, seats: Seats, left: list, right: list, choice: str) -> dict:
        """Keep the pair that a choice makes; of a blind talk the vote as well, which then tells who sat where."""
        who = seats.who(choice) if choice in SIDES else choice
        base, tuned = seats.sorted(flat(left), flat(right))
        run, told, wrong = studio.find(name), "", ""
        try:
            refuse_before_both_answered(base, tuned)
            if seats.hidden and run is not None:
                votes.add(run, studio.said(jobs.of(run)), who, base[-2]["content"])
                told = f"{CHOSEN[who]} A was {seats.who('left')}, B was {seats.who('right')}; the next question begins a new talk. "
                seats = seats.revealed()
            told += "" if who == "neither" else keep(preferred(base, tuned, who), name)
        except StudioError as error:
            wrong = f"Not kept as a pair. {error}"
        notes = (parts.note("good", told) if told else "") + (parts.note("warn", wrong) if wrong else "")
        return seat(seats) | {kept: notes, either: gr.Row(visible=not told), counted: tally(studio, run)}

    def look(name: str | None, blind: bool) -> tuple[str, str]:
        return lead(studio, name, blind), tally(studio, studio.find(name))

    def offer(name: str | None) -> gr.Dropdown:
        found = questions(studio.find(name))
        return gr.Dropdown(found, value=None, visible=bool(found))

    def take(chosen: str | None) -> tuple[Any, Any]:
        return (chosen, None) if chosen else (gr.skip(), gr.skip())

    offered.input(take, offered, [question, offered], **QUIET)
    for event in (tab.select, in_view.change):
        event(offer, in_view, offered, **QUIET)
    asking = question.submit(ask, [in_view, question, seated, *chats.values()], talk, inputs_kwargs=sampling_fields,
                             concurrency_limit=1, **PRIVATE)
    halt.click(lambda: gr.Textbox(**OPEN), None, question, cancels=[asking], **QUIET)
    # A chat's own bin empties one side, and half a talk is none.
    for anew in (clear.click, in_view.change, blind.change, *(chat.clear for chat in chats.values())):
        anew(afresh, blind, talk, cancels=[asking], **QUIET)
    for choice, button in {**better, "neither": neither}.items():
        button.click(lambda *given, choice=choice: prefer(*given, choice), [in_view, seated, *chats.values()], [*talk, counted], **PRIVATE)
    save.click(write, [in_view, seated, *chats.values(), own], [kept, own], **PRIVATE)
    watch = gr.Timer(2.0)
    for event in (watch.tick, in_view.change, blind.change, tab.select):
        event(look, [in_view, blind], [top, counted], **QUIET)
    return watch
