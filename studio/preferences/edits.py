"""Edits: what is changed in the pairs before a model learns from them, written as text that a run keeps.

    drop duplicates; swap 12, 203; drop source = toxic-dpo-v0.2; swap all

Each is one step: a verb and what it concerns, which is `all` pairs, row numbers, a check of the doctor's, or a column's
value. They are applied one after the other to the pairs as they stand; the file they came from is never touched.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from studio.errors import DataError
from studio.preferences.doctor import CHECKS
from studio.preferences.findings import Seen

Verb = Literal["drop", "swap", "keep"]
LEAKS = "leaks"
"""The one check that looks at held-out pairs; its edit waits until they are divided from the others."""


@dataclass(frozen=True)
class Edit:
    """One step. Of `rows`, `check` and `column` at most one is set; none means all pairs."""

    verb: Verb
    rows: frozenset[int] = frozenset()
    check: str = ""
    column: str = ""
    value: str = ""

    def __str__(self) -> str:
        if self.column:
            return f"{self.verb} {self.column} = {self.value}"
        return f"{self.verb} {self.check or ', '.join(map(str, sorted(self.rows))) or 'all'}"

    def concerns(self) -> Callable[[Seen], bool]:
        """Whether a pair is concerned; asked for one after the other, in the order of the data."""
        if self.check:
            return CHECKS[self.check]().see
        return lambda seen: not self.rows or seen.number in self.rows


def parse(text: str) -> list[Edit]:
    """The steps in order. Raises DataError naming the one that is none."""
    return [_parsed(" ".join(part.split())) for part in text.split(";") if part.strip()]


def _parsed(words: str) -> Edit:
    verb, _, what = words.partition(" ")
    column, equals, value = (part.strip() for part in what.partition("="))
    if verb not in get_args(Verb) or not what:
        raise DataError(f"“{words}” is no edit. Write drop, swap or keep and what it concerns, such as: drop 17; swap all.")
    if equals and column and verb != "swap":
        return Edit(verb, column=column, value=value)
    if what in CHECKS and verb != "keep":
        return Edit(verb, check=what)
    if what == "all" and verb == "swap":
        return Edit(verb)
    numbers = [part.strip() for part in what.split(",")]
    if verb != "keep" and all(number.isascii() and number.isdigit() for number in numbers):
        return Edit(verb, rows=frozenset(map(int, numbers)))
    raise DataError(f"“{words}” names nothing that can be edited. Name row numbers, a column and its value (source = web), "
                    f"or one of: {', '.join(CHECKS)}.")


@dataclass
class Editor:
    """Applies edits to rows and pairs as they pass; `counts` says how many pairs each has concerned so far."""

    edits: list[Edit]

    def __post_init__(self):
        self.counts = [0] * len(self.edits)
        self._filters = [(place, edit) for place, edit in enumerate(self.edits) if edit.column]

    @property
    def dropped(self) -> int:
        """Rows and pairs that were taken out so far."""
        return sum(count for edit, count in zip(self.edits, self.counts, strict=True) if edit.verb != "swap")

    def lets_pass(self, values: Mapping[str, Any]) -> bool:
        """Whether a row of the source stays, by its columns' values. Raises DataError for a column that is not there."""
        for place, edit in self._filters:
            if edit.column not in values:
                raise DataError(f"There is no column “{edit.column}” to {edit.verb} by; the columns are {', '.join(values)}. "
                                "Change the edit, or remove it.")
            same = str(values[edit.column]) == edit.value
            if same == (edit.verb == "drop"):
                self.counts[place] += 1
                return False
        return True

    def pairs(self, found: Iterable[Seen]) -> Iterator[Seen]:
        """The pairs as the edits leave them."""
        for place, edit in enumerate(self.edits):
            if not edit.column and edit.check != LEAKS:
                found = self._applied(found, place, edit)
        return iter(found)

    def _applied(self, found: Iterable[Seen], place: int, edit: Edit) -> Iterator[Seen]:
        concerned = edit.concerns()
        for seen in found:
            if not concerned(seen):
                yield seen
                continue
            self.counts[place] += 1
            if edit.verb == "swap":
                yield seen._replace(pair=replace(seen.pair, chosen=seen.pair.rejected, rejected=seen.pair.chosen))

    def drops_leaks(self, count: int) -> bool:
        """Whether leaks are dropped; `count` of them, found elsewhere, are then counted as dropped."""
        asked = [place for place, edit in enumerate(self.edits) if edit.check == LEAKS]
        for place in asked[:1]:
            self.counts[place] += count
        return bool(asked)

    def apart(self, train: list[Seen], held_out: list[Seen]) -> list[Seen]:
        """The held-out pairs without those that the edits call leaks: their question is among the others'."""
        for place, edit in enumerate(self.edits):
            if edit.check == LEAKS:
                leaks = edit.concerns()
                for seen in train:
                    leaks(seen._replace(held_out=False))
                kept = [seen for seen in held_out if not leaks(seen._replace(held_out=True))]
                self.counts[place] += len(held_out) - len(kept)
                held_out = kept
        return held_out

    def in_words(self) -> str:
        """What was done, in one sentence; empty if nothing was."""
        done = [f"“{edit}” concerned {count:,}" for edit, count in zip(self.edits, self.counts, strict=True)]
        return f"Edits: {'; '.join(done)}." if done else ""
