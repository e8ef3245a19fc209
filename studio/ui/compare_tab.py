"""Compare: two candidates side by side, answering the same question at the same time, openly or blind; what is preferred becomes a pair."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, get_args

import gradio as gr

from studio import candidates, collected, votes
from studio.chat import Answers
from studio.errors import StudioError
from studio.preferences.pairs import Message, Pair
from studio.ui import all_asked, pairing, parts, questions_card
from studio.ui.seats import Seats, Side
from studio.ui.studio import PRIVATE, QUIET, Studio, refuse
from studio.ui.talk import flat, preferred, refuse_before_both_answered, shown
from studio.votes import NEITHER, Preferred

SIDES: tuple[Side, ...] = get_args(Side)
WAITING = "Both are answering; the first answer also loads the model …"
ALIKE = "Both answered the same, so neither is better. Ask something else, or write a better answer."
CHOICES = (
    ("compare-first", "Compare", "The base, this run, its checkpoints, or another run on the same base in the same precision."),
    ("compare-second", "with", "All answer from one loaded base, so nothing but the adapter differs."))
OPEN = {"interactive": True, "placeholder": "Ask both the same"}
"""The question box while it takes a question."""


def build(studio: Studio, in_view: gr.Dropdown, tab: gr.Tab) -> gr.Timer:
    """The components and wiring of `tab`. Returns the timer by which it looks again."""
    top = gr.HTML(pairing.lead(studio, None), elem_id="compare-head", padding=False)
    with gr.Row(visible=False, elem_classes="fields") as choice:
        one, other = (gr.Dropdown([], label=label, info=info, interactive=True, min_width=280, elem_id=elem_id)
                      for elem_id, label, info in CHOICES)
    blind = gr.Checkbox(False, label="Blind", elem_id="blind", interactive=True,
                        info="Hides whose answer is whose until you have voted, and counts your votes with the run.")
    with gr.Row(visible=False) as talks:  # two empty chats have nothing to tell them apart, to the eye or a screen reader
        chats = {side: gr.Chatbot(label=Seats().label(side), height=420, elem_id=f"chat-{side}", buttons=["copy"]) for side in SIDES}
    with gr.Column(visible=False, elem_id="collect") as collect:
        with gr.Row() as either:
            better = {side: gr.Button(Seats().button(side), size="sm", elem_id=f"prefer-{side}") for side in SIDES}
            neither = gr.Button("No difference", size="sm", visible=False, elem_id="prefer-neither")
        with gr.Accordion("Neither: write a better answer", open=False):
            own = gr.Textbox(label="Your answer", lines=3, elem_id="own-answer",
                             info="Becomes the better answer of a pair; the worse one is that of the second who is compared.")
            save = gr.Button("Save the pair", size="sm", elem_id="prefer-own")
        kept = gr.HTML(elem_id="collected", padding=False)
    question = gr.Textbox(label="Your question", elem_id="question", submit_btn="Ask both", **OPEN)
    questions_card.build(studio, in_view, tab, question, chats["left"])
    with gr.Row():
        halt = gr.Button("Stop answering", size="sm", elem_id="stop-answering")
        clear = gr.Button("New chat", size="sm", elem_id="new-chat")
    counted = gr.HTML(elem_id="votes", padding=False)
    with gr.Accordion("Sampling", open=False), gr.Row(elem_classes="fields"):
        sampling_fields = {name: gr.Number(value=value, label=label, info=info, precision=0 if isinstance(value, int) else None)
                           for name, (value, label, info) in pairing.SAMPLING.items()}
    seated, pair_fields = gr.State(Seats()), [in_view, one, other]
    asking_all = all_asked.build(studio, pair_fields, blind, sampling_fields)
    talk = [question, *chats.values(), talks, collect, either, kept, seated, *better.values(), neither]

    def seat(seats: Seats, **said: list[Message]) -> dict:
        """Let everything show who sits where; and what was said there, if that is handed over."""
        return {seated: seats, neither: gr.Button(visible=seats.blind),
                **{better[side]: gr.Button(seats.button(side)) for side in SIDES},
                **{chats[side]: gr.Chatbot(label=seats.label(side), **({"value": said[side]} if said else {})) for side in SIDES}}

    def ask(name: str | None, first: str | None, second: str | None, text: str, seats: Seats, left: list, right: list,
            **chosen: Any) -> Iterator[dict]:
        try:
            run, pair, sampling = pairing.to_ask(studio, name, first, second, chosen)
            if not (text or "").strip():
                raise StudioError("There is no question. Write one and press Enter.")
        except StudioError as error:
            yield refuse("Not asked", error)
            return
        if seats.blind and (seats.told or not left):
            seats, left, right = seats.drawn(), [], []
        before = [[*flat(talk), {"role": "user", "content": text}] for talk in (left, right)]
        # Locked while they answer: a question in between would be asked of a talk that is not complete.
        yield seat(seats, **dict(zip(SIDES, shown(Answers(), before, seats), strict=True))) | {
            question: gr.Textbox("", interactive=False, placeholder=WAITING), talks: gr.Row(visible=True),
            collect: gr.Column(visible=False), kept: ""}
        alike = False
        try:
            for answers in studio.chat.ask(run, pair, seats.sorted(*before), sampling, studio.secrets(run)):
                alike = answers.first == answers.second
                yield dict(zip(chats.values(), shown(answers, before, seats), strict=True))
        except StudioError as error:
            yield {question: gr.Textbox(text, **OPEN), talks: gr.Row(visible=len(before[0]) > 1),
                   **{chats[side]: talk[:-1] for side, talk in zip(SIDES, before, strict=True)}}
            refuse("No answer", error)
            return
        yield {question: gr.Textbox(**OPEN), collect: gr.Column(visible=True), either: gr.Row(visible=not alike),
               kept: parts.note("info", ALIKE) if alike else ""}

    def afresh(name: str | None, first: str | None, second: str | None, blind: bool) -> dict:
        seats, run = Seats(blind=blind), studio.find(name)
        with suppress(StudioError):  # which `lead` tells
            seats = Seats(pairing.called(run, pairing.of_form(run, first, second)), blind) if run is not None else seats
        return seat(seats, left=[], right=[]) | {question: gr.Textbox(**OPEN), talks: gr.Row(visible=False),
                                                 collect: gr.Column(visible=False), kept: ""}

    def keep(pair: Pair, name: str | None) -> str:
        """Keep a pair. Returns how many there are now, in words. Raises StudioError."""
        count = collected.add(studio.root, pair, name or "")
        many = f"{count:,} pair{'s' * (count != 1)} collected"
        return f"Kept as a pair: {many} so far. Under Data they can be learned from."

    def write(name: str | None, seats: Seats, left: list, right: list, text: str) -> tuple[str, Any]:
        """Keep the person's own answer as the better one."""
        try:
            told = keep(preferred(*seats.sorted(flat(left), flat(right)), NEITHER, text or ""), name)
        except StudioError as error:
            return parts.note("warn", f"Not kept. {error}"), gr.skip()
        return parts.note("good", told), ""

    def prefer(name: str | None, first: str | None, second: str | None, seats: Seats, left: list, right: list, side: Side | None) -> dict:
        """Keep the pair that a choice makes; of a blind talk the vote as well, which then tells who sat where."""
        who: Preferred = NEITHER if side is None else seats.place(side)
        said = seats.sorted(flat(left), flat(right))
        run, told, wrong = studio.find(name), "", ""
        try:
            refuse_before_both_answered(*said)
            if seats.hidden and run is not None:
                votes.add(run, pairing.now(studio, run, pairing.of_form(run, first, second)), who, said[0][-2]["content"])
                told = "You saw no difference." if who == NEITHER else f"You preferred the answer of {seats.names[who]}."
                told += f" A was {seats.name('left')}, B was {seats.name('right')}; the next question begins a new talk. "
                seats = seats.revealed()
            told += "" if who == NEITHER else keep(preferred(*said, who), name)
        except StudioError as error:
            wrong = f"Not kept as a pair. {error}"
        notes = (parts.note("good", told) if told else "") + (parts.note("warn", wrong) if wrong else "")
        return seat(seats) | {kept: notes, either: gr.Row(visible=not told), counted: pairing.tally(studio, run, first, second)}

    def offer(name: str | None, first: str | None, second: str | None, anew: bool = False) -> tuple:
        """Who can be chosen now; what was chosen stays, unless it is no longer there or all is `anew`."""
        run = studio.find(name)
        beside = [other for other in studio.runs() if run is not None and other.folder.parent == run.folder.parent]
        there = candidates.offered(run, beside) if run is not None else []
        listed = [(candidates.in_list(candidate, run), str(candidate)) for candidate in there]
        keys = [key for _, key in listed]
        chosen = [given if given in keys and not anew else usual
                  for given, usual in zip((first, second), keys or [None, None], strict=False)]
        return (gr.Row(visible=bool(there)), *(gr.Dropdown(listed, value=value) for value in chosen))

    def told(name: str | None, first: str | None, second: str | None, blind: bool) -> tuple:
        run = studio.find(name)
        return pairing.lead(studio, name, first, second, blind), pairing.tally(studio, run, first, second)

    def look(name: str | None, first: str | None, second: str | None, blind: bool, before: tuple | None) -> Any:
        """All that is shown depends on this; the timer returns nothing else."""
        run = studio.find(name)
        now = (*told(name, first, second, blind), run is not None and run.adapter.is_dir())
        return gr.skip() if now == before else now

    def offer_if_new(name: str | None, first: str | None, second: str | None) -> tuple:
        run = studio.find(name)
        is_new = not first and run is not None and run.adapter.is_dir()  # it has ended since nobody could be offered
        return offer(name, first, second) if is_new else (gr.skip(),) * 3

    tab.select(offer, pair_fields, [choice, one, other], **QUIET)
    chosen_anew = in_view.change(lambda *given: offer(*given, anew=True), pair_fields, [choice, one, other], **QUIET)
    asking = question.submit(ask, [*pair_fields, question, seated, *chats.values()], talk, inputs_kwargs=sampling_fields,
                             concurrency_limit=1, **PRIVATE)
    halt.click(lambda: gr.Textbox(**OPEN), None, question, cancels=[asking, asking_all], **QUIET)
    # A chat's own bin empties one side, and half a talk is none.
    for anew in (clear.click, chosen_anew.then, one.input, other.input, blind.change, *(chat.clear for chat in chats.values())):
        anew(afresh, [*pair_fields, blind], talk, cancels=[asking], **QUIET)
    for side, button in {**better, None: neither}.items():
        button.click(lambda *given, side=side: prefer(*given, side), [*pair_fields, seated, *chats.values()], [*talk, counted], **PRIVATE)
    save.click(write, [in_view, seated, *chats.values(), own], [kept, own], **PRIVATE)
    watch, news = gr.Timer(2.0), gr.State(None)
    watch.tick(look, [*pair_fields, blind, news], news, concurrency_limit=None, **QUIET)
    news.change(offer_if_new, pair_fields, [choice, one, other], **QUIET)
    for event in (news.change, chosen_anew.then, one.input, other.input, blind.change, tab.select):
        event(told, [*pair_fields, blind], [top, counted], **QUIET)
    return watch
