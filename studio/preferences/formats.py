"""Preference data of every known format -> pairs: what a sample shows is told in words, then every row is read the same way.

No row disappears: each is a pair, the other half of one, or has the reason why it is neither.
"""

import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, NamedTuple

from studio.errors import DataError
from studio.preferences import turns
from studio.preferences.answers import Named, Ordered, Row, Voted, first, holds_text, listed, named, ordered, two_answers, voted
from studio.preferences.pairs import Message, Pair
from studio.preferences.rated import LISTS, SINGLES, Labelled, Rated, labelled, rated

PROMPT_NAMES = ("prompt", "question", "instruction", "input", "query", "conversations", "conversation", "messages", "trajectory",
                "history", "context")
SYSTEM_NAMES = ("system", "system_prompt")
IMAGE_NAMES = ("image", "images")
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


@dataclass(frozen=True)
class Format:
    """How the rows of a dataset are read. `prompt` is empty where the answers are whole conversations.

    `extra` is a column that continues the question. `whole` says that the sample holds whole conversations, `insisted` that
    a person named the prompt. `dialect` is that of texts which are transcripts.
    """

    answers: Named | Ordered | Voted | Rated | Labelled
    prompt: str = ""
    extra: str = ""
    system: str = ""
    images: str = ""
    unused: tuple[str, ...] = ()
    dialect: str = ""
    whole: bool = False
    insisted: bool = False

    @property
    def kind(self) -> str:
        """In which way the answers are kept: named, ordered, voted, rated or labelled."""
        return type(self.answers).__name__.lower()

    @property
    def columns(self) -> dict[str, str]:
        """Column by role, of those that are used."""
        found = {"prompt": self.prompt, "extra": self.extra, "system": self.system, **self.answers.columns()}
        return {role: name for role, name in found.items() if name}

    def in_words(self) -> str:
        """What was recognised, where each part comes from, and which columns are not used."""
        system = f", the system turn from “{self.system}”" if self.system else ""
        text = f"Takes the question from {self._where()}{system}{self.answers.in_words()}"
        text += f"; the texts are {turns.DIALECTS[self.dialect]}." if self.dialect else "."
        return f"{text} Not used: {listed([f'“{name}”' for name in self.unused])}." if self.unused else text

    def _where(self) -> str:
        asked = f"“{self.prompt}”" + (f" continued by “{self.extra}”" if self.extra else "")
        if not self.whole and self.prompt:
            return asked
        if not self.prompt:
            return "the conversations themselves"
        if self.insisted:
            return f"{asked}, or from the conversations where they hold the same with what came before"
        return f"the conversations themselves (from {asked} only where they hold none)"

    def read(self, rows: Iterable[tuple[int, Row]]) -> Iterator[Taken]:
        """What became of every row, one by one; single labels that found no partner come last."""
        if isinstance(self.answers, Labelled):
            yield from self._matched(rows)
            return
        for number, row in rows:
            try:
                yield Taken(number, self._pair(row))
            except DataError as reason:
                yield Taken(number, None, str(reason))

    def _pair(self, row: Row) -> Pair:
        self._check_images(row)
        chosen, rejected = (turns.turns(answer, "assistant", self.dialect) for answer in self.answers.of(row))
        if not turns.is_whole(chosen) and not turns.is_whole(rejected):
            return turns.joined(self._with_system(self._question(row), row), chosen, rejected)
        prompt, chosen, rejected = turns.divided(chosen, rejected)
        return turns.joined(self._fuller(prompt, row), chosen, rejected)

    def _single(self, row: Row) -> tuple[list[Message], list[Message], bool]:
        """Question, answer and whether it is good, of a row with a single label."""
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
        return turns.turns(value, "user", self.dialect)

    def _fuller(self, prompt: list[Message], row: Row) -> list[Message]:
        """The conversation's own question, which a prompt column beside it repeats; unless a person named another."""
        if self.insisted and not turns.repeats(asked := self._question(row), prompt):
            prompt = asked
        return self._with_system(prompt, row)

    def _with_system(self, prompt: list[Message], row: Row) -> list[Message]:
        text = row.get(self.system) if self.system else None
        if not isinstance(text, str) or not text.strip() or not prompt or prompt[0]["role"] == "system":
            return prompt
        return [{"role": "system", "content": text}, *prompt]

    def _matched(self, rows: Iterable[tuple[int, Row]]) -> Iterator[Taken]:
        """Pairs of a question's first good and first bad answer, and so on. Only answers that wait for one are kept."""
        waiting: dict[bytes, deque[tuple[int, list[Message], bool]]] = {}
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
            before, other, _ = line.popleft()
            yield from _both(number, before, prompt, (answer, other) if good else (other, answer))
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


# --- recognition ------------------------------------------------------------------------------------------------------


def recognise(names: Sequence[str], sample: Sequence[Row], asked: Asked = Asked()) -> Format:  # noqa: B008 - it cannot change
    """The format by column names and the values of the first rows, or as asked for.

    Raises DataError naming the columns that are there, what is missing, and what to do.
    """
    names = list(names)
    for name in filter(None, asked):
        if name not in names:
            raise DataError(f"There is no column “{name}”; the columns are {listed(names)}. Name one of these.")
    if asked.chosen and asked.chosen == asked.rejected:
        raise DataError(f"The column “{asked.chosen}” is named for both answers. Name another for one of them.")
    answers = _answers(names, sample, asked)
    taken = set(answers.columns().values())
    free = [name for name in names if name not in taken]
    prompt = asked.prompt or first(PROMPT_NAMES, sample, free)
    system, images = first(SYSTEM_NAMES, sample, free), first(IMAGE_NAMES, sample, free)
    found = Format(answers, prompt, _extra(prompt, free, sample), system, images, insisted=bool(asked.prompt))
    return _settled(found, names, sample)


def _answers(names: list[str], sample: Sequence[Row], asked: Asked) -> Named | Ordered | Voted | Rated | Labelled:
    columns = named(sample, names, asked.chosen, asked.rejected)
    both = columns.chosen and columns.rejected
    if both and (asked.chosen or asked.rejected or holds_text(columns.chosen, sample)):
        return columns
    if not asked.chosen and not asked.rejected:
        found = voted(sample, names) or rated(sample, names) or ordered(sample, names) or labelled(sample, names)
        if found:
            return found
    if both:
        return columns
    raise DataError(_missing(columns, names, sample))


def _extra(prompt: str, free: list[str], sample: Sequence[Row]) -> str:
    """The column “input” beside an instruction, if it holds texts."""
    more = first(("input",), sample, free) if prompt.lower() == "instruction" else ""
    return more if more and any(isinstance(row.get(more), str) for row in sample) else ""


def _settled(found: Format, names: list[str], sample: Sequence[Row]) -> Format:
    """The format with what only the values tell. Raises DataError if they hold no question, or labels that make no pair."""
    values = list(_better(found, sample))
    dialect = next(filter(None, (turns.dialect_of([value for value in column if isinstance(value, str)])
                                 for column in ([row.get(found.prompt) for row in sample], values))), "")
    answers = []
    for value in values:
        with suppress(DataError):
            answers.append(turns.turns(value, "assistant", dialect))
    whole = any(turns.is_whole(answer) for answer in answers)
    if not found.prompt and any(len(answer) == 1 for answer in answers) and not whole:
        raise DataError(f"No column with the question was recognised; the columns are {listed(names)}. "
                        "Name the prompt column under Data.")
    unused = tuple(name for name in names if name not in found.columns.values())
    return replace(found, dialect=dialect, whole=whole, unused=unused)


def _better(found: Format, sample: Sequence[Row]) -> Iterator[Any]:
    for row in sample:
        with suppress(DataError):
            yield found.answers.of(row)[0]


def _missing(columns: Named, names: list[str], sample: Sequence[Row]) -> str:
    """Why no two answers were recognised, and what to do."""
    there = f"the columns are {listed(names)}. "
    name_them = "ame the columns with the better and the worse answer under Data."
    missing = " and ".join(role for role, name in columns.columns().items() if not name)
    if columns.chosen or columns.rejected:
        return f"No column for {missing} was recognised; {there}N{name_them}"
    both, many, single = two_answers(sample, names), first(LISTS, sample, names), first(SINGLES, sample, names)
    if both:
        return f"“{both[0][0]}” and “{both[0][1]}” hold two answers, but no column says which is better; {there}N{name_them}"
    if many and any(isinstance(row.get(many), list | tuple) for row in sample):
        return f"“{many}” holds several answers, but nothing rates them; {there}Add a list of ratings, or n{name_them}"
    if single and holds_text(single, sample):
        return (f"“{single}” holds single answers, which is data for supervised fine-tuning: there is no worse answer; {there}"
                f"Choose preference data, or n{name_them}")
    return f"No column for {missing} was recognised; {there}N{name_them}"
