"""Compare: two candidates side by side, answering the same question at the same time, openly or blind; what is preferred becomes a pair."""

import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import gradio as gr

from studio import collected, votes
from studio.errors import StudioError
from studio.preferences.pairs import Pair
from studio.runs import Run
from studio.ui import all_asked, news, pairing, parts, questions_card, votes_card
from studio.ui.choices import Dropdown, once_closed, with_choices
from studio.ui.seats import Seats, Side
from studio.ui.studio import LATEST, PRIVATE, QUIET, TEXTS, Studio, refuse
from studio.ui.talk import Talk, preferred, refuse_before_both_answered
from studio.votes import NEITHER, Preferred

SIDES: tuple[Side, ...] = get_args(Side)
SCRIPT = Path(__file__).resolve().parents[2] / "assets" / "talk.js"
WAITING = "Both are answering; the first answer also loads the model …"
ALIKE = "Both answered the same, so neither is better. Ask something else, or write a better answer."
JUDGED = "You have judged these answers already. Ask the next question, or undo the vote below."
CHOICES = (
    ("compare-first", "Compare", "The base, this run, its checkpoints, or another run on the same base in the same precision."),
    ("compare-second", "with", "All answer from one loaded base, so nothing but the adapter differs."))
OPEN = {"interactive": True, "placeholder": "Ask both the same"}
"""The question box while it takes a question."""
CLOSED = {"interactive": False, "placeholder": "There is nobody to ask yet"}
"""The question box until a run has come into view: a question that was asked before would be lost when it does."""


def build(studio: Studio, in_view: gr.Dropdown, tab: gr.Tab) -> gr.Timer:
    """The components and wiring of `tab`. Returns the timer by which it looks again."""
    top = gr.HTML(pairing.lead(studio, None), elem_id="compare-head", padding=False)
    with gr.Row(visible=False, elem_classes="fields") as choice:
        one, other = (Dropdown([], label=label, info=info, interactive=True, min_width=280, elem_id=elem_id)
                      for elem_id, label, info in CHOICES)
    blind = gr.Checkbox(False, label="Blind", elem_id="blind", interactive=True,
                        info="Hides whose answer is whose until you have voted, and counts your votes with the run.")
    system = gr.Textbox(label="System prompt", lines=1, max_lines=8, elem_id="system-prompt",
                        info="Both read it before the first question. It begins as the one that all pairs of the run have, if there is "
                             "one. A change begins a new chat.")
    with gr.Row(visible=False, elem_id="talks") as talks:
        chats = {side: gr.HTML(elem_id=f"chat-{side}", padding=False, js_on_load=SCRIPT.read_text(encoding="utf-8")) for side in SIDES}
    with gr.Column(visible=False, elem_id="collect") as collect:
        with gr.Row() as either:
            better = {side: gr.Button(Seats().button(side), size="sm", elem_id=f"prefer-{side}") for side in SIDES}
            neither = gr.Button("No difference", size="sm", visible=False, elem_id="prefer-neither")
        with gr.Accordion("Neither: write a better answer", open=False):
            own = gr.Textbox(label="Your answer", lines=3, elem_id="own-answer",
                             info="Becomes the better answer of a pair; the worse one is that of the second who is compared.")
            save = gr.Button("Save the pair", size="sm", elem_id="prefer-own")
    kept = gr.HTML(elem_id="collected", padding=False)
    question = gr.Textbox(label="Your question", elem_id="question", submit_btn="Ask both", **CLOSED)
    said, filled, pair_fields = gr.State(Talk()), gr.State(""), [in_view, one, other]
    questions_card.build(studio, in_view, tab, question, system, said)
    with gr.Row():
        halt = gr.Button("Stop answering", size="sm", elem_id="stop-answering")
        clear = gr.Button("New chat", size="sm", elem_id="new-chat")
    counted = gr.HTML(elem_id="votes", padding=False)
    judged = votes_card.build(studio)
    with gr.Accordion("Sampling", open=False), gr.Row(elem_classes="fields"):
        sampling_fields = {name: gr.Number(value=value, label=label, info=info, precision=0 if isinstance(value, int) else None)
                           for name, (value, label, info) in pairing.SAMPLING.items()}
    asking_all = all_asked.build(studio, pair_fields, blind, system, sampling_fields)
    stale, changed = news.build(), news.build()
    lists = [choice, one, other, system, filled, changed]
    talk = [question, *chats.values(), talks, collect, either, kept, said, *better.values(), neither]

    def heard(now: Talk) -> dict:
        return {said: now, **{chats[side]: now.shown(side) for side in SIDES}}

    def seat(now: Talk) -> dict:
        """Let everything show what was said, and who sits where."""
        return heard(now) | {neither: gr.Button(visible=now.seats.blind),
                             **{better[side]: gr.Button(now.seats.button(side)) for side in SIDES}}

    def talking(now: Talk) -> dict:
        """The answers so far. Also shows the row again: a change of candidates just before the question may have hidden it."""
        return heard(now) | {talks: gr.Row(visible=True)}

    def ask(name: str | None, first: str | None, second: str | None, text: str, opening: str, before: Talk, blind: bool,
            **chosen: Any) -> Iterator[dict]:
        try:
            run, pair, sampling = pairing.to_ask(studio, name, first, second, chosen)
            if not (text or "").strip():
                raise StudioError("There is no question. Write one and press Enter.")
        except StudioError as error:
            refuse("Not asked", error)
            yield offer(name, first, second, name or "") if pairing.out_of_date(studio.find(name), first, second) else {kept: gr.skip()}
            return
        seats = seated(run, first, second, blind)
        if (before.seats.names, before.seats.blind) != (seats.names, blind):  # changed just now: `afresh` has not answered yet
            before = Talk(seats)
        asked = now = before.asked(text, opening if (opening or "").strip() else "")
        # Locked while they answer: a question in between would be asked of a talk that is not complete.
        yield seat(asked) | {question: gr.Textbox("", interactive=False, placeholder=WAITING), talks: gr.Row(visible=True),
                             collect: gr.Column(visible=False), kept: ""}
        note = ""
        try:
            for answers in studio.chat.ask(run, pair, asked.sides, sampling, studio.secrets(run)):
                now, note = asked.answered(answers), answers.note
                yield talking(now)
        except StudioError as error:
            yield seat(before) | {question: gr.Textbox(text, **OPEN), talks: gr.Row(visible=bool(before.first))}
            refuse("No answer", error)
            return
        alike = now.first[-1] == now.second[-1]
        notes = (parts.note("info", ALIKE) if alike else "") + (parts.note("warn", note) if note else "")
        yield talking(now) | {question: gr.Textbox(**OPEN), collect: gr.Column(visible=True), either: gr.Row(visible=not alike),
                              kept: notes}

    def seated(run: Run | None, first: str | None, second: str | None, blind: bool) -> Seats:
        with suppress(StudioError):  # which `lead` tells
            return Seats(pairing.called(run, pairing.of_form(run, first, second)), blind) if run is not None else Seats(blind=blind)
        return Seats(blind=blind)

    def afresh(name: str | None, first: str | None, second: str | None, blind: bool) -> dict:
        run = studio.find(name)
        return seat(Talk(seated(run, first, second, blind))) | {
            question: gr.Textbox(**(CLOSED if run is None else OPEN)), talks: gr.Row(visible=False),
            collect: gr.Column(visible=False), kept: ""}

    def keep(pair: Pair, name: str | None, identity: str) -> str:
        """Keep a pair. Returns how many there are now, in words. Raises StudioError."""
        count = collected.add(studio.root, pair, name or "", identity)
        many = f"{count:,} pair{'s' * (count != 1)} collected"
        return f"Kept as a pair: {many} so far. Under Data they can be learned from."

    def write(name: str | None, now: Talk, text: str) -> tuple[str, Any, str]:
        """Keep the person's own answer as the better one."""
        try:
            told = keep(preferred(now, NEITHER, text or ""), name, secrets.token_hex(8))
        except StudioError as error:
            return parts.note("warn", f"Not kept. {error}"), gr.skip(), gr.skip()
        return parts.note("good", told), "", news.again()

    def prefer(name: str | None, first: str | None, second: str | None, now: Talk, side: Side | None) -> dict:
        """Keep the pair that a choice makes; of a blind talk the vote as well, which then tells who sat where."""
        seats, run, told, wrong, identity = now.seats, studio.find(name), "", "", secrets.token_hex(8)
        who: Preferred = NEITHER if side is None else seats.place(side)
        try:
            refuse_before_both_answered(now)
            if now.judged:
                raise StudioError(JUDGED)
            if seats.hidden and run is not None:
                votes.add(run, pairing.now(studio, run, pairing.of_form(run, first, second)), who, now.question, identity)
                told = "You saw no difference." if who == NEITHER else f"You preferred the answer of {seats.names[who]}."
                told += f" A was {seats.name('left')}, B was {seats.name('right')}; the next question begins a new talk. "
                now = replace(now, seats=seats.revealed(), judged=identity)
            if who != NEITHER:
                told += keep(preferred(now, who), name, identity)
                now = replace(now, judged=identity)
        except StudioError as error:
            wrong = f"Not kept as a pair. {error}"
        notes = (parts.note("good", told) if told else "") + (parts.note("warn", wrong) if wrong else "")
        return seat(now) | {kept: notes, either: gr.Row(visible=not told), changed: news.again()}

    def undone(name: str | None, first: str | None, second: str | None, now: Talk, asked: gr.EventData) -> dict:
        """Take a judgement back. What was preferred openly can then be judged again; who sat where in a blind talk is known by now."""
        words, identity = votes_card.undo(studio, name, first, second, (asked._data or {}).get("id"))
        again = now.judged == identity and not now.seats.blind
        return {kept: words, changed: news.again(),
                **({said: replace(now, judged=""), either: gr.Row(visible=True)} if again else {})}

    def offer(name: str | None, first: str | None, second: str | None, filled_for: str, anew: bool = False) -> dict:
        """Who can be chosen now; what was chosen stays, unless it is no longer there or all is `anew`. Of a run that comes into
        view the system prompt of its pairs is filled in. While there is nobody, the lists keep what they hold, out of sight."""
        run = studio.find(name)
        listed = pairing.who_is_there(studio, run)
        if not listed:
            return {choice: gr.Row(visible=False), changed: news.again()}
        keys = [key for _, key in listed]
        chosen = [given if given in keys and not anew else usual for given, usual in zip((first, second), keys, strict=False)]
        opening = {} if filled_for == name else {system: pairing.usual_system(studio, run), filled: name}
        return {choice: gr.Row(visible=True), changed: news.again(), **opening,
                **{field: with_choices(listed, held, wanted) for field, held, wanted
                   in zip((one, other), (first, second), chosen, strict=True)}}

    def look(name: str | None, first: str | None, second: str | None, blind: bool) -> tuple[str, str, str]:
        """What the page shows of the pair; and a text that changes when the lists must be offered anew."""
        run = studio.find(name)
        stale = f"{name} {first} {second}" if pairing.out_of_date(run, first, second) else ""
        return pairing.lead(studio, name, first, second, blind), pairing.tally(studio, run, first, second), stale

    def refresh(name: str | None, first: str | None, second: str | None, blind: bool) -> tuple[str, ...]:
        return *look(name, first, second, blind), judged.look(name, first, second)

    looking = [*pair_fields, blind]
    gr.on([tab.select, stale.change], offer, [*pair_fields, filled], lists, **once_closed(one, other), **QUIET, **LATEST)
    chosen_anew = news.own(in_view.change).change(partial(offer, anew=True), [*pair_fields, filled], lists, **QUIET)
    asking = question.submit(ask, [*pair_fields, question, system, said, blind], [*talk, *lists], inputs_kwargs=sampling_fields, **PRIVATE)
    halt.click(lambda name: gr.Textbox(**(OPEN if name else CLOSED)), in_view, question, cancels=[asking, asking_all], **QUIET)
    for anew in (clear.click, chosen_anew.then, one.input, other.input, blind.input):
        anew(afresh, looking, talk, cancels=[asking], **QUIET)
    for side, button in {**better, None: neither}.items():
        button.click(partial(prefer, side=side), [*pair_fields, said], [*talk, changed], **PRIVATE)
    save.click(write, [in_view, said, own], [kept, own, changed], **PRIVATE)
    judged.shown.click(undone, [*pair_fields, said], [kept, changed, said, either], **PRIVATE)
    watch = gr.Timer(2.0)
    watch.tick(lambda *given: news.digest(look(*given)), looking, changed, **QUIET, **TEXTS)
    gr.on([changed.change, one.input, other.input, blind.input], refresh, looking, [top, counted, stale, judged.shown],
          **QUIET, **LATEST, **TEXTS)
    return watch
