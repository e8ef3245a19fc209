"""The two talks of Compare: what was said, what of it is shown, what is offered to be asked, and the pair that a preference makes.

What was said is kept on the server, to the byte. What the page shows is derived from it and never comes back: a display may lose
indentation, tabs, tags or the end of a text.
"""

import json
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice

from studio import whole
from studio.chat import Answers
from studio.errors import StudioError
from studio.preferences.pairs import Message, Pair, common_system
from studio.questions import Question, lines
from studio.runs import Run
from studio.ui import parts
from studio.ui.seats import Seats, Side
from studio.votes import Preferred

QUESTIONS, LONGEST_QUESTION, LOOKED_THROUGH = 30, 300, 500
"""Questions offered, characters of each, and held-out pairs among which they are looked for."""
SILENT = "…"
"""Stands on the page for an answer that has no word yet."""


@dataclass(frozen=True)
class Talk:
    """What both were asked and said. `first` and `second` are the candidates' talks, wherever they are shown."""

    seats: Seats = field(default_factory=Seats)
    first: tuple[Message, ...] = ()
    second: tuple[Message, ...] = ()
    answering: bool = False
    """Whether the last answers are not complete; they stay so where they were stopped."""
    together: bool | None = None
    judged: str = ""
    """The identity of the judgement on the last answers, if there is one."""

    @property
    def sides(self) -> tuple[list[Message], list[Message]]:
        """The talk of the first and that of the second."""
        return list(self.first), list(self.second)

    @property
    def system(self) -> str:
        """The system prompt with which it began."""
        return self.first[0]["content"] if self.first and self.first[0]["role"] == "system" else ""

    @property
    def question(self) -> str:
        """The last question; empty before there is one."""
        return next((turn["content"] for turn in reversed(self.first) if turn["role"] == "user"), "")

    def asked(self, text: str, system: str = "") -> "Talk":
        """The talk with one more question to both, which is a new one where the system prompt is another, or a blind vote is over."""
        talk = self
        if self.seats.blind and (self.seats.told or not self.first):
            talk = Talk(self.seats.drawn())
        elif self.first and self.system != system:
            talk = Talk(self.seats.drawn() if self.seats.blind else self.seats)
        opening = () if talk.first or not system else ({"role": "system", "content": system},)
        asked = {"role": "user", "content": text}
        return replace(talk, first=(*(talk.first or opening), asked), second=(*(talk.second or opening), asked), answering=True, judged="",
                       together=None)

    def answered(self, answers: Answers) -> "Talk":
        """A talk that ends with a question, with the answers to it so far."""
        first, second = ({"role": "assistant", "content": text} for text in (answers.first, answers.second))
        return replace(self, first=(*self.first, first), second=(*self.second, second), answering=not answers.done,
                       together=answers.together)

    def shown(self, side: Side) -> str:
        """One side as HTML.

        Two that answer in turn would tell by it which is which: while that is hidden, both are silent until both are done.
        """
        turns = list(self.sides[self.seats.place(side)])
        hides = self.answering and self.seats.hidden and not self.together
        if turns and turns[-1]["role"] == "user":
            turns.append({"role": "assistant", "content": SILENT})
        elif turns and (hides or self.answering and not turns[-1]["content"]):
            turns[-1] = turns[-1] | {"content": SILENT}
        return parts.conversation(self.seats.label(side), turns, self.answering)


def refuse_before_both_answered(talk: Talk) -> None:
    """Raises StudioError where there is nothing to prefer yet."""
    if not talk.first or talk.answering or talk.first[-1]["role"] != "assistant":
        raise StudioError("There are no two answers yet. Ask both a question, and let both say their last word.")


def preferred(talk: Talk, who: Preferred, own: str | None = None) -> Pair:
    """The pair that a person makes of both answers: that of the first or the second is better, or their own than the second's.

    Every text is as it was asked and given. Raises StudioError where the two did not answer the same talk.
    """
    refuse_before_both_answered(talk)
    first, second = talk.sides
    if own is not None and not own.strip():
        raise StudioError("Your answer is empty. Write one first.")
    if first[:-1] != second[:-1]:
        raise StudioError("The two have had different talks by now, and a pair needs one question. Start a new chat and ask there.")
    better, worse = (first[-1], second[-1]) if who == 0 else (second[-1], first[-1])
    if own is not None:
        better, worse = {"role": "assistant", "content": own}, second[-1]
    return Pair(second[:-1], [better], [worse])


def held_out_prompts(run: Run) -> list[list[Message]]:
    """The prompts of the first held-out pairs; none where they cannot be read."""
    found = []
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError), open(
            run.held_out, encoding="utf-8", opener=whole.at_once) as rows:
        for row in islice(rows, LOOKED_THROUGH):
            found.append(json.loads(row)["prompt"])
    return [prompt for prompt in found if isinstance(prompt, list) and prompt]


def questions(run: Run | None, kept: list[Question], usual: str = "") -> list[Question]:
    """What to ask of a run without thinking: what a person kept, its fixed prompts, then short questions of held-out pairs,
    which training never saw. Those come with their system prompt where it is not the `usual` one."""
    if run is None or not run.adapter.is_dir():
        return []
    found: list[Question] = []
    with suppress(StudioError):  # settings that cannot be read: there are the other questions
        found += [Question(line) for line in lines(run.settings.evaluation.prompts)]
    for prompt in held_out_prompts(run):
        with suppress(KeyError, TypeError):
            system = prompt[0]["content"] if prompt[0]["role"] == "system" else ""
            if len(prompt) == 1 + bool(system) and 0 < len(prompt[-1]["content"]) <= LONGEST_QUESTION:
                found.append(Question(prompt[-1]["content"], None if system == usual else system))
    first = {question.text: question for question in reversed(found)}
    offered = [first[text] for text in dict.fromkeys(question.text for question in found)][:QUESTIONS]
    own = {question.text: question for question in reversed(kept)}
    return [*own.values(), *(question for question in offered if question.text not in own)]


def usual_system(run: Run, planned: str | None) -> str:
    """The system prompt that all pairs of a run have: as it said when it was planned, or, of an older run, as those held out have it."""
    return common_system(held_out_prompts(run)) if planned is None else planned
