"""Preference data of every known format -> pairs: what a sample shows is told in words, then every row is read the same way.

No row disappears: each is a pair, the other half of one, or has the reason why it is neither.
"""

import json
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, NamedTuple

from studio.errors import DataError
from studio.preferences import transcripts, turns
from studio.preferences.answers import Named, Ordered, Picked, each, listed
from studio.preferences.pairs import Message, Pair
from studio.preferences.rated import Labelled, Rated
from studio.preferences.scored import Scored
from studio.preferences.structure import Row, View, kind_of
from studio.preferences.tools import tools_of
from studio.preferences.voted import Pointed, Voted

Answers = Named | Ordered | Picked | Voted | Scored | Pointed | Rated | Labelled
PATIENCE = 50_000
"""Single labels after which, if no two went together, none are expected to: they are kept in memory until then."""
NOT_FOR_ORPO = ("These are single labels (KTO), from which ORPO cannot learn: no two rows are a good and a bad answer to the same "
                "question. Choose preference data with both answers, or train on these with KTO elsewhere.")


class Taken(NamedTuple):
    """What became of a row: a pair, or the reason why it is none. Neither means: the other half of a pair already given."""

    number: int
    pair: Pair | None
    reason: str = ""


class Asked(NamedTuple):
    """Columns that a person named; an empty one is left to recognition."""

    prompt: str = ""
    chosen: str = ""
    rejected: str = ""
    vote: str = ""


@dataclass(frozen=True)
class Format:
    """How the rows of a dataset are read. `prompt` is empty where the answers are whole conversations.

    `extra` is a column that continues the question, `history` one with the turns before it. `whole` says that the sample
    holds whole conversations, `insisted` that a person named the prompt, `proposed` that only its values made it the prompt,
    `several` that rows of the sample hold more than one worse answer. `dialect` is that of texts which are transcripts, `tools` the
    column with what can be called.
    All columns are those that `view` shows.
    """

    answers: Answers
    prompt: str = ""
    extra: str = ""
    system: str = ""
    images: str = ""
    history: str = ""
    tools: str = ""
    unused: tuple[str, ...] = ()
    dialect: str = ""
    whole: bool = False
    insisted: bool = False
    proposed: bool = False
    several: bool = False
    view: View = View()

    @property
    def kind(self) -> str:
        """In which way the answers are kept: named, ordered, picked, voted, scored, pointed, rated or labelled."""
        return type(self.answers).__name__.lower()

    @property
    def columns(self) -> dict[str, str]:
        """Column by role, of those that are used."""
        found = {"prompt": self.prompt, "extra": self.extra, "system": self.system, "history": self.history, "tools": self.tools,
                 **self.answers.columns()}
        return {role: name for role, name in found.items() if name}

    def in_words(self) -> str:
        """What was recognised, where each part comes from, and which columns are not used."""
        system = f", the system turn from “{self.system}”" if self.system else ""
        before = f", the turns before it from “{self.history}”" if self.history else ""
        text = f"Takes the question from {self._where()}{before}{system}{self.answers.in_words()}"
        text += f", the tools that can be called from “{self.tools}”" if self.tools else ""
        text += f"; the texts are {transcripts.DIALECTS[self.dialect].words}." if self.dialect else "."
        text += " Each worse answer of a row makes a pair of its own." if self.several else ""
        text += self.view.in_words()
        return f"{text} Not used: {listed([f'“{name}”' for name in self.unused])}." if self.unused else text

    def _where(self) -> str:
        asked = f"“{self.prompt}”" + (f" continued by “{self.extra}”" if self.extra else "")
        if not self.whole and self.prompt:
            return f"{asked}, the only other column with texts" if self.proposed else asked
        if not self.prompt:
            return "the conversations themselves"
        if self.insisted:
            return f"{asked}, or from the conversations where they hold the same with what came before"
        return f"the conversations themselves (from {asked} only where they hold none)"

    def read(self, rows: Iterable[tuple[int, Row]]) -> Iterator[Taken]:
        """What became of every row, one by one; single labels that found no partner come last.

        A row with several worse answers is as many pairs, one after the other under its number.
        """
        if isinstance(self.answers, Labelled):
            yield from self._matched(rows)
            return
        for number, row in rows:
            try:
                row = self.view.of(row)
                couples = list(self._couples(row))
            except DataError as reason:
                yield Taken(number, None, str(reason))
                continue
            for better, worse in couples:
                try:
                    yield Taken(number, self._pair(row, better, worse))
                except DataError as reason:
                    yield Taken(number, None, str(reason))

    def _couples(self, row: Row) -> Iterator[tuple[Any, Any]]:
        """Each better answer of a row with each worse one. Where questions stand in a list, so do their answers."""
        question = row.get(self.prompt) if self.prompt else None
        several = kind_of(question) == "texts" and len(question) > 1
        for better, worse in self.answers.of(row):
            if several and all(kind_of(answers) == "texts" and len(answers) == len(question) for answers in (better, worse)):
                yield turns.interleaved(question, better), turns.interleaved(question, worse)
                continue
            found = [(one, other) for one in each(better) for other in each(worse)]
            if not found:
                raise DataError("have an empty answer")
            yield from found

    def _pair(self, row: Row, better: Any, worse: Any) -> Pair:
        self._check_images(row)
        tools = tools_of(row.get(self.tools)) if self.tools else []
        chosen, rejected = (turns.turns(answer, "assistant", self.dialect) for answer in (better, worse))
        if not turns.is_whole(chosen) and not turns.is_whole(rejected):
            return replace(turns.joined(self._with_system(self._question(row), row), chosen, rejected), tools=tools)
        prompt, chosen, rejected = turns.divided(chosen, rejected)
        return replace(turns.joined(self._fuller(prompt, row), chosen, rejected), tools=tools)

    def _single(self, row: Row) -> tuple[list[Message], list[Message], float]:
        """Question, answer and how good it is, of a row with a single label or number."""
        row = self.view.of(row)
        self._check_images(row)
        value, good = self.answers.of(row)
        answer = turns.turns(value, "assistant", self.dialect)
        if turns.is_whole(answer):
            prompt, answer = turns.parted(answer)
            prompt = self._fuller(prompt, row)
        else:
            prompt = self._with_system(self._question(row), row)
        turns.check_question(prompt)
        turns.check_answer(prompt, answer)
        return prompt, answer, good

    def _check_images(self, row: Row) -> None:
        if self.images and row.get(self.images):
            raise DataError("hold an image, which this studio does not train on")

    def _question(self, row: Row) -> list[Message]:
        value = row.get(self.prompt) if self.prompt else None
        more = row.get(self.extra) if self.extra else None
        if isinstance(more, str) and more.strip() and (value is None or isinstance(value, str)) and more != value:
            value = f"{value}\n\n{more}" if value and value.strip() else more
        asked = turns.turns(value, "user", self.dialect)
        before = turns.earlier(row.get(self.history)) if self.history else []
        return before if before and turns.repeats(asked, before[-1:]) else [*before, *asked]

    def _fuller(self, prompt: list[Message], row: Row) -> list[Message]:
        """The conversation's own question, which a prompt column beside it repeats; unless a person named another."""
        if self.insisted and not turns.repeats(asked := self._question(row), prompt):
            prompt = asked
        return self._with_system(prompt, row)

    def _with_system(self, prompt: list[Message], row: Row) -> list[Message]:
        said = turns.turns(row.get(self.system), "system") if self.system else []
        if not said or not prompt or prompt[0]["role"] == "system":
            return prompt
        return [{"role": "system", "content": said[0]["content"]}, *prompt]

    def _matched(self, rows: Iterable[tuple[int, Row]]) -> Iterator[Taken]:
        """Pairs of a question's first good and first bad answer, and so on. Only answers that wait for one are kept."""
        waiting: dict[bytes, deque[tuple[int, list[Message], float]]] = {}
        matched: set[bytes] = set()
        for number, row in rows:
            try:
                prompt, answer, good = self._single(row)
            except DataError as reason:
                yield Taken(number, None, str(reason))
                continue
            key = _digest(prompt)
            line = waiting.setdefault(key, deque())
            if not line or line[0][2] == good:
                line.append((number, answer, good))
                if not matched and len(waiting) > PATIENCE:
                    break
                continue
            matched.add(key)
            before, other, worth = line.popleft()
            yield from _both(number, before, prompt, (answer, other) if good > worth else (other, answer))
            if not line:
                del waiting[key]
        if waiting and not matched:
            raise DataError(NOT_FOR_ORPO)
        left = ((number, key) for key, line in waiting.items() for number, _, _ in line)
        for number, key in sorted(left):
            yield Taken(number, None, "have no answer of the other kind left to go with" if key in matched
                        else "have a prompt with answers of one kind only")


def _both(number: int, before: int, prompt: list[Message], answers: tuple[list[Message], list[Message]]) -> Iterator[Taken]:
    """The pair of two rows under the later one's number, or the reason of both."""
    try:
        found = (turns.joined(prompt, *answers), "")
    except DataError as reason:
        found = (None, str(reason))
    yield Taken(number, *found)
    yield Taken(before, None, found[1])


def _digest(prompt: list[Message]) -> bytes:
    return blake2b(json.dumps(prompt, default=str).encode(), digest_size=16).digest()
