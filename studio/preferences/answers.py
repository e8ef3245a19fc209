"""Where a row keeps its better and its worse answer: in a column for each, in one for both, or in two with a vote.

They are found by column names together with the values of a sample; `of` gives a row's two answers as they are.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from studio.errors import DataError

Row = Mapping[str, Any]

CHOSEN_NAMES = ("chosen", "chosen_response", "better", "preferred", "response_chosen", "chosen_answer", "chosen_output",
                "chosen_completion", "chosen_messages", "chosen_conversations", "better_response", "better_answer",
                "preferred_response", "preferred_answer", "accepted", "response_j", "good", "good_answer", "good_response")
REJECTED_NAMES = ("rejected", "rejected_response", "worse", "dispreferred", "response_rejected", "rejected_answer", "rejected_output",
                  "rejected_completion", "rejected_messages", "rejected_conversations", "worse_response", "worse_answer",
                  "dispreferred_response", "dispreferred_answer", "declined", "response_k", "bad", "bad_answer", "bad_response")
TWO_NAMES = (*((f"{stem}{one}", f"{stem}{other}")
               for stem in ("response_", "answer_", "output_", "completion_", "conversation_", "response", "answer", "output")
               for one, other in (("a", "b"), ("0", "1"), ("1", "2"))),
             ("human_ref_a", "human_ref_b"), ("model_a", "model_b"))
VOTE_NAMES = ("winner", "preference", "overall_preference", "preference_strength", "preferred", "better", "better_response",
              "better_response_id", "better_answer", "best", "chosen", "chosen_index", "chosen_id", "choice", "vote", "verdict",
              "judgment", "label", "labels", "safer_response_id")


def first(wanted: Sequence[str], sample: Sequence[Row], names: Sequence[str]) -> str:
    """The first of the wanted names that is a column, letter case aside; one with text goes before an empty one or numbers."""
    lower = {name.lower(): name for name in reversed(names)}
    return max((lower[name] for name in wanted if name in lower), key=lambda name: _fitness(name, sample), default="")


def holds_text(name: str, sample: Sequence[Row]) -> bool:
    """Whether a row of the sample has a text, a turn or a list there."""
    return _fitness(name, sample) == 2


def _fitness(name: str, sample: Sequence[Row]) -> int:
    """2 for text, turns or lists, 1 for nothing at all, 0 for anything else."""
    values = [row[name] for row in sample if row.get(name) is not None]
    return 1 if not values else 2 * any(isinstance(value, str | list | tuple | Mapping) for value in values)


def listed(names: Sequence[str]) -> str:
    """The names in a sentence, the first dozen."""
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "") or "none"


def mostly(fits: Sequence[bool]) -> bool:
    """Whether nine of ten do, so that a few odd rows do not hide a format."""
    return bool(fits) and sum(fits) >= 0.9 * len(fits)


def plain(value: Any) -> str:
    """A mark as it compares: 1, 1.0, True and "1" are the same."""
    return "" if value is None else str(int(value) if isinstance(value, bool) else value).strip().lower().removesuffix(".0")


def number(value: Any) -> float | None:
    """The number that a value is or writes, if it is a finite one."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


# --- two columns ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Named:
    """A column for the better and one for the worse answer."""

    chosen: str
    rejected: str

    def columns(self) -> dict[str, str]:
        """Column by role."""
        return {"chosen": self.chosen, "rejected": self.rejected}

    def of(self, row: Row) -> tuple[Any, Any]:
        """The better and the worse answer."""
        return row.get(self.chosen), row.get(self.rejected)

    def in_words(self) -> str:
        """How they are found; follows "the question from ..."."""
        return f", the better answer from “{self.chosen}” and the worse from “{self.rejected}”"


@dataclass(frozen=True)
class Ordered:
    """A column with lists of two answers, the better one first."""

    both: str

    def columns(self) -> dict[str, str]:
        """Column by role."""
        return {"both": self.both}

    def of(self, row: Row) -> tuple[Any, Any]:
        """The better and the worse answer."""
        both = row.get(self.both)
        if not isinstance(both, list | tuple) or len(both) != 2:
            raise DataError("hold something else than two answers")
        return both[0], both[1]

    def in_words(self) -> str:
        """How they are found; follows "the question from ..."."""
        return f" and both answers from “{self.both}”, of which the first is taken as the better"


@dataclass(frozen=True)
class Voted:
    """Two columns with answers and one that says which is better: a mark of the first or second, or a sign.

    `signed` votes are numbers: below zero for the first, above for the second.
    """

    one: str
    other: str
    vote: str
    marks: tuple[tuple[str, ...], tuple[str, ...]]
    signed: bool = False

    def columns(self) -> dict[str, str]:
        """Column by role."""
        return {"one": self.one, "other": self.other, "vote": self.vote}

    def of(self, row: Row) -> tuple[Any, Any]:
        """The better and the worse answer."""
        value = plain(row.get(self.vote))
        if self.signed:
            sign = number(value) or 0
            better = None if sign == 0 else int(sign > 0)
        else:
            better = next((place for place in (0, 1) if value in self.marks[place]), None)
        if better is None:
            raise DataError("have a tie, or no vote for one of the two answers")
        both = row.get(self.one), row.get(self.other)
        return both[better], both[1 - better]

    def in_words(self) -> str:
        """How they are found; follows "the question from ..."."""
        says = "below 0", "above 0"
        if not self.signed:
            says = tuple(marks[0] for marks in self.marks)
        return (f" and the answers from “{self.one}” and “{self.other}”; "
                f"the better is the first where “{self.vote}” is {says[0]}, the second where it is {says[1]}")


def named(sample: Sequence[Row], names: Sequence[str], chosen: str = "", rejected: str = "") -> Named:
    """The columns for the better and the worse answer, empty where there is none; names that belong together go first."""
    lower = {name.lower() for name in names}
    together = next((two for two in zip(CHOSEN_NAMES, REJECTED_NAMES, strict=True) if lower.issuperset(two)), ("", ""))
    return Named(chosen or first((together[0], *CHOSEN_NAMES), sample, names),
                 rejected or first((together[1], *REJECTED_NAMES), sample, names))


def ordered(sample: Sequence[Row], names: Sequence[str]) -> Ordered | None:
    """A column “output” with two answers in each row, as LLaMA-Factory writes comparisons."""
    both = first(("output",), sample, names)
    values = [row[both] for row in sample if row.get(both) is not None] if both else []
    fits = mostly([isinstance(value, list | tuple) and list(map(type, value)) == [str, str] for value in values])
    return Ordered(both) if fits else None


def voted(sample: Sequence[Row], names: Sequence[str]) -> Voted | None:
    """Two answers and a vote, if the sample holds them."""
    lower = {name.lower(): name for name in reversed(names)}
    for one, other in two_answers(sample, names):
        for vote in (lower[name] for name in VOTE_NAMES if name in lower):
            seen = {plain(row.get(vote)) for row in sample}
            signed = any((number(value) or 0) < 0 for value in seen)
            marks = _marks(one.lower(), other.lower(), seen)
            if vote not in (one, other) and (signed or seen & {*marks[0], *marks[1]}):
                return Voted(one, other, vote, marks, signed)
    return None


def two_answers(sample: Sequence[Row], names: Sequence[str]) -> list[tuple[str, str]]:
    """The columns that look like two answers of which neither is named as the better."""
    lower = {name.lower(): name for name in reversed(names)}
    both = [(lower[one], lower[other]) for one, other in TWO_NAMES if one in lower and other in lower]
    return [two for two in both if all(holds_text(name, sample) for name in two)]


def _marks(one: str, other: str, seen: set[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a vote for the first and for the second may look like, the look that was seen first."""
    if one.startswith("human_ref"):  # the Stanford human preferences write 1 where the first is preferred
        return ("1",), ("0",)
    numbers = {value for value in seen if value.isdigit()}
    if numbers:
        named_one, two = one.endswith("1"), "2" in numbers
        from_one = named_one and two if "0" in numbers else named_one or two  # the third number, if there is one, is a tie
        return (("1",), ("2",)) if from_one else (("0",), ("1",))
    marks = _words(one, "a", "first"), _words(other, "b", "second")
    usual = next((alike for alike in zip(*marks, strict=False) if not seen.isdisjoint(alike)), (marks[0][0], marks[1][0]))
    return (usual[0], *marks[0]), (usual[1], *marks[1])


def _words(name: str, letter: str, place: str) -> tuple[str, ...]:
    """The words that name a column with one of two answers."""
    ends = dict.fromkeys((letter, name[-1]))
    return (letter, name, place, *ends, *(f"{stem}{gap}{end}" for stem in ("model", "response", "answer", "assistant", "output")
                                          for gap in ("_", " ", "") for end in ends))
