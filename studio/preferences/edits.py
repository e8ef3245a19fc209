"""Edits: what is changed in the pairs before a model learns from them, written as text that a run keeps.

    drop duplicates; swap 12, 203; drop source = toxic-dpo-v0.2; hold out split = test; join system;
    rewrite 17 {"chosen": "Yes; it does."}; swap all

Each is one step: a verb and what it concerns, which is `all` pairs, row numbers, a check of the doctor's, or a column's
value. They are applied one after the other to the pairs as they stand; the file they came from is never touched.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from studio.errors import DataError
from studio.preferences.doctor import CHECKS
from studio.preferences.findings import Seen
from studio.preferences.pairs import Message, Pair

Verb = Literal["drop", "swap", "keep", "hold out", "rewrite", "join"]
"""keep and hold out go by a column's value, rewrite by a row, join is of the system turn with the question."""
LEAKS = "leaks"
"""The one check that looks at held-out pairs; its edit waits until they are divided from the others."""
PARTS = ("prompt", "chosen", "rejected")
REWRITE = re.compile(r"\s*rewrite\s+(\d+)\s*(?=\{)", re.ASCII)


@dataclass(frozen=True)
class Edit:
    """One step. Of `rows`, `check` and `column` at most one is set; none means all pairs.

    `texts` are a rewritten row's: the part and what its last turn is to say.
    """

    verb: Verb
    rows: frozenset[int] = frozenset()
    check: str = ""
    column: str = ""
    value: str = ""
    texts: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        if self.column:
            return f"{self.verb} {self.column} = {self.value}"
        if self.verb == "join":
            return "join system"
        said = f"{self.verb} {self.check or ', '.join(map(str, sorted(self.rows))) or 'all'}"
        return f"{said} {json.dumps(dict(self.texts), ensure_ascii=False)}" if self.texts else said

    @property
    def is_filter(self) -> bool:
        """Whether it looks at a row's columns, before the row is a pair."""
        return bool(self.column)

    def concerns(self) -> Callable[[Seen], bool]:
        """Whether a pair is concerned; asked for one after the other, in the order of the data."""
        if self.check:
            return CHECKS[self.check]().see
        if self.verb == "join":
            return lambda seen: seen.pair.prompt[0]["role"] == "system"
        return lambda seen: not self.rows or seen.number in self.rows

    def changed(self, pair: Pair) -> Pair | None:
        """What becomes of a pair that is concerned; None if it goes. Raises DataError if nothing is left to prefer."""
        match self.verb:
            case "swap":
                return replace(pair, chosen=pair.rejected, rejected=pair.chosen)
            case "join":
                return replace(pair, prompt=_joined(pair.prompt))
            case "rewrite":
                made = replace(pair, **{part: [*getattr(pair, part)[:-1], getattr(pair, part)[-1] | {"content": text}]
                                        for part, text in self.texts})
                if made.chosen == made.rejected:
                    raise DataError(f"“{_brief(str(self))}” makes both answers the same. Let them differ, or drop the row.")
                return made
        return None


def _joined(prompt: list[Message]) -> list[Message]:
    """The prompt with its system turn before the first question, for templates that know no system turn."""
    system, first, *others = prompt
    return [first | {"content": f"{system['content']}\n\n{first['content']}"}, *others]


# --- reading ----------------------------------------------------------------------------------------------------------


def parse(text: str) -> list[Edit]:
    """The steps in order. Raises DataError naming the one that is none."""
    found, at = [], 0
    while at < len(text):
        if rewrite := REWRITE.match(text, at):
            edit, at = _rewritten(text, rewrite)
            found.append(edit)
        end = text.find(";", at)
        end = len(text) if end < 0 else end
        words = " ".join(text[at:end].split())
        if words and rewrite:
            raise DataError(f"“{_brief(words)}” stands after a rewritten row. Put a semicolon between two edits.")
        if words:
            found.append(_parsed(words))
        at = end + 1
    return found


def _rewritten(text: str, start: re.Match) -> tuple[Edit, int]:
    """The edit that gives a row other texts, and where it ends: they are JSON, in which a semicolon ends nothing."""
    row = int(start[1])
    try:
        texts, end = json.JSONDecoder().raw_decode(text, start.end())
    except ValueError as error:
        raise DataError(f"The texts of “rewrite {row}” are not JSON: {error}. "
                        'Write them like this: rewrite 17 {"chosen": "Yes."}.') from error
    if not texts or not all(part in PARTS and isinstance(said, str) and said.strip() for part, said in texts.items()):
        raise DataError(f"“rewrite {row}” gives no texts for prompt, chosen or rejected. Give each that changes a text that is not empty.")
    return Edit("rewrite", rows=frozenset({row}), texts=tuple(texts.items())), end


def _parsed(words: str) -> Edit:
    verb = next((verb for verb in get_args(Verb) if words.startswith(f"{verb} ")), "")
    what = words.removeprefix(verb).strip()
    column, equals, value = (part.strip() for part in what.partition("="))
    if not verb:
        raise DataError(f"“{_brief(words)}” is no edit. "
                        "Write drop, swap, keep or hold out and what it concerns, such as: drop 17; swap all.")
    if equals and column and verb in ("drop", "keep", "hold out"):
        return Edit(verb, column=column, value=value)
    if what in CHECKS and verb in ("drop", "swap"):
        return Edit(verb, check=what)
    if (verb, what) in (("swap", "all"), ("join", "system")):
        return Edit(verb)
    numbers = [part.strip() for part in what.split(",")]
    if verb in ("drop", "swap") and all(number.isascii() and number.isdigit() for number in numbers):
        return Edit(verb, rows=frozenset(map(int, numbers)))
    raise DataError(f"“{_brief(words)}” names nothing that can be edited. Name row numbers, a column and its value (source = web), "
                    f"or one of: {', '.join(CHECKS)}.")


def _brief(words: str) -> str:
    return words if len(words) <= 80 else f"{words[:79]}…"


# --- applying ---------------------------------------------------------------------------------------------------------


@dataclass
class Editor:
    """Applies edits to rows and pairs as they pass; `counts` says how many each has concerned, `dropped` how many are gone."""

    edits: list[Edit]

    def __post_init__(self):
        self.counts, self.dropped = [0] * len(self.edits), 0
        self._filters = [(place, edit) for place, edit in enumerate(self.edits) if edit.is_filter]
        self._held_out: set[int] = set()

    @property
    def holds_out(self) -> bool:
        """Whether the edits say which pairs are held out."""
        return any(edit.verb == "hold out" for edit in self.edits)

    def check_columns(self, names: Sequence[str]) -> None:
        """Raises DataError for an edit by a column that the data do not have."""
        for _, edit in self._filters:
            if edit.column not in names:
                raise DataError(f"There is no column “{edit.column}” to {edit.verb} by; the columns are {', '.join(names)}. "
                                "Change the edit, or remove it.")

    def lets_pass(self, number: int, values: Mapping[str, Any]) -> bool:
        """Whether a row of the source stays, by its columns' values."""
        for place, edit in self._filters:
            same = _as_text(values.get(edit.column)) == edit.value
            if same == (edit.verb == "keep"):
                continue
            self.counts[place] += 1
            if edit.verb != "hold out":
                self.dropped += 1
                return False
            self._held_out.add(number)
        return True

    def pairs(self, found: Iterable[Seen]) -> Iterator[Seen]:
        """The pairs as the edits leave them, marked if they are to be held out."""
        found = map(self._marked, found) if self.holds_out else found
        for place, edit in enumerate(self.edits):
            if not edit.is_filter and edit.check != LEAKS:
                found = self._applied(found, place, edit)
        return iter(found)

    def _marked(self, seen: Seen) -> Seen:
        if seen.number not in self._held_out:
            return seen
        self._held_out.discard(seen.number)
        return seen._replace(held_out=True)

    def _applied(self, found: Iterable[Seen], place: int, edit: Edit) -> Iterator[Seen]:
        concerned = edit.concerns()
        for seen in found:
            if not concerned(seen):
                yield seen
                continue
            self.counts[place] += 1
            pair = edit.changed(seen.pair)
            if pair is None:
                self.dropped += 1
            else:
                yield seen._replace(pair=pair)

    def drops_leaks(self, count: int) -> bool:
        """Whether leaks are dropped; `count` of them, found elsewhere, are then counted as dropped."""
        asked = [place for place, edit in enumerate(self.edits) if edit.check == LEAKS]
        for place in asked[:1]:
            self.counts[place] += count
        return bool(asked)

    def leaks(self, train: Iterable[Seen], held_out: Iterable[Seen]) -> set[int]:
        """The rows of held-out pairs that the edits drop because their question is trained on; looked for only if one says so."""
        found: set[int] = set()
        for place, edit in enumerate(self.edits):
            if edit.check == LEAKS and not found:
                is_leak = edit.concerns()
                for seen in train:
                    is_leak(seen._replace(held_out=False))
                found = {seen.number for seen in held_out if is_leak(seen._replace(held_out=True))}
                self.counts[place] += len(found)
        return found

    def in_words(self) -> str:
        """What was done, in one sentence; empty if nothing was."""
        done = [f"“{_brief(str(edit))}” concerned {count:,}" for edit, count in zip(self.edits, self.counts, strict=True)]
        return f"Edits: {'; '.join(done)}." if done else ""


def _as_text(value: Any) -> str:
    return "" if value is None else str(value)
