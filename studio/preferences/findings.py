"""What a doctor's finding is, and the shape that every check has."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from studio.preferences.pairs import Message, Pair, in_full

Weight = Literal["bad", "warn", "hint"]
NAMED = 200
"""Rows that a finding names; the others are counted."""


class Seen(NamedTuple):
    """A pair with its row's number in the source. All training pairs are seen before the held-out ones."""

    number: int
    pair: Pair
    held_out: bool = False


@dataclass(frozen=True)
class Finding:
    """What is wrong with `count` rows, in words, and the first of them by number.

    `button` says what one click would do: add `edit`, in the language of edits, or give the field `setting` its `value`.
    All are empty where nothing sensible can be done by machine.
    """

    name: str
    weight: Weight
    count: int
    words: str
    rows: tuple[int, ...]
    edit: str = ""
    button: str = ""
    setting: str = ""
    value: int | bool | str = 0


class Check(Protocol):
    """One check, made afresh for every pass over the pairs."""

    name: str

    def see(self, seen: Seen) -> bool:
        """Whether this pair is concerned. The same pairs in the same order give the same answers."""

    def finding(self, total: int) -> Finding | None:
        """What the pairs seen so far add up to, or None for nothing worth saying."""


def said(turns: list[Message]) -> str:
    """What some turns say, one after the other, tool calls and thinking included."""
    return "\n".join(map(in_full, turns))


def share(count: int, total: int) -> str:
    """A count with its share: "12 of 300 pairs (4 %)". Only all of them are 100 %, and only none are 0 %."""
    part = 100 * count / max(1, total)
    told = "under 1 %" if 0 < part < 1 else "over 99 %" if 99.5 <= part < 100 else f"{part:.0f} %"
    return f"{count:,} of {total:,} pairs ({told})"
