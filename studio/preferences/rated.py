"""Answers that are rated: a list of them with numbers or ranks, or one a row that is called good or bad."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from studio.errors import DataError
from studio.preferences.answers import Row, first, holds_text, mostly, number, plain
from studio.preferences.turns import unzipped

LISTS = ("completions", "responses", "answers", "candidates", "generations", "outputs")
TEXTS = ("response", "text", "content", "answer", "completion", "output", "generation", "message", "messages")
SCORES = ("rating", "score", "fine-grained_score", "overall_score", "overall_rating", "pm_score", "reward", "quality",
          "ratings", "scores", "overall_scores", "rewards")
RANKS = ("rank", "ranking", "ranks", "rankings")
SINGLES = ("completion", "response", "answer", "output", "generation", "messages", "conversations", "conversation", "text")
LABELS = ("label", "labels", "kto_tag", "desirable", "is_desirable", "good", "is_good", "thumbs", "feedback")
GOOD, BAD = ("true", "1", "good", "yes", "desirable", "up"), ("false", "0", "bad", "no", "undesirable", "down")


# --- lists of answers -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rated:
    """A column with a list of answers, each with a number: the best is set against the worst.

    The answers are structs with a field `text` and one `by`, or, where `text` is empty, the numbers are the column `by`.
    """

    many: str
    by: str
    text: str = ""
    ranks: bool = False
    """Whether 1 is best."""

    def columns(self) -> dict[str, str]:
        """Column by role."""
        return {"many": self.many} if self.text else {"many": self.many, "ratings": self.by}

    def of(self, row: Row) -> tuple[Any, Any]:
        """The best and the worst answer; of equals the first."""
        many = _listed(row.get(self.many))
        if self.text:
            rated = [(one.get(self.by), one.get(self.text)) for one in many if isinstance(one, Mapping)]
        else:
            numbers = row.get(self.by)
            if not isinstance(numbers, list | tuple) or len(numbers) != len(many):
                raise DataError("have another number of ratings than of answers")
            rated = list(zip(numbers, many, strict=True))
        found = [(float(worth), answer) for rating, answer in rated
                 if (worth := number(rating)) is not None and answer and not (isinstance(answer, str) and not answer.strip())]
        if len(found) < 2:
            raise DataError("have fewer than two rated answers")
        highest, lowest = max(found, key=_worth), min(found, key=_worth)
        if highest[0] == lowest[0]:
            raise DataError("have answers that are all rated the same")
        return (lowest[1], highest[1]) if self.ranks else (highest[1], lowest[1])

    def in_words(self) -> str:
        """How they are found; follows "the question from ..."."""
        best, worst = ("lowest", "highest") if self.ranks else ("highest", "lowest")
        return (f" and the answers from “{self.many}”: the one with the {best} “{self.by}” as the better, "
                f"the one with the {worst} as the worse")


def rated(sample: Sequence[Row], names: Sequence[str]) -> Rated | None:
    """A list of answers and what rates them, if the sample holds them."""
    lower = {name.lower(): name for name in reversed(names)}
    for many in (lower[name] for name in LISTS if name in lower):
        fields = [one for row in sample for one in _listed(row.get(many)) if isinstance(one, Mapping)]
        keys = list(dict.fromkeys(key for one in fields for key in one))
        text = first(TEXTS, fields, keys)
        numeric = [key for key in keys if any(number(one.get(key)) is not None for one in fields)]
        beside = [name for name in names if any(_are_numbers(row.get(name)) for row in sample)]
        for wanted, ranks in ((SCORES, False), (RANKS, True)):
            if text and (by := _named(wanted, numeric)):
                return Rated(many, by, text, ranks)
            if not text and holds_text(many, sample) and (by := _named(wanted, beside)):
                return Rated(many, by, ranks=ranks)
    return None


def _named(wanted: Sequence[str], names: Sequence[str]) -> str:
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in wanted if name in lower), "")


def _listed(value: Any) -> Sequence[Any]:
    return unzipped(value) if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list | tuple) and any(number(item) is not None for item in value)


def _worth(found: tuple[float, Any]) -> float:
    return found[0]


# --- one answer a row -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Labelled:
    """A column with one answer and one that calls it good or bad. Two rows with the same question make a pair."""

    single: str
    label: str

    def columns(self) -> dict[str, str]:
        """Column by role."""
        return {"single": self.single, "label": self.label}

    def of(self, row: Row) -> tuple[Any, bool]:
        """The answer and whether it is good."""
        label = plain(row.get(self.label))
        if label not in GOOD and label not in BAD:
            raise DataError("have a label that is neither good nor bad")
        return row.get(self.single), label in GOOD

    def in_words(self) -> str:
        """How they are found; follows "the question from ..."."""
        return (f" and single answers from “{self.single}”, which “{self.label}” calls good or bad: "
                "a good and a bad one to the same question become a pair")


def labelled(sample: Sequence[Row], names: Sequence[str]) -> Labelled | None:
    """One answer a row and a label of two values, if the sample holds them."""
    single = first(SINGLES, sample, names)
    if not single or not holds_text(single, sample):
        return None
    lower = {name.lower(): name for name in reversed(names)}
    for label in (lower[name] for name in LABELS if name in lower):
        if mostly([plain(row[label]) in (*GOOD, *BAD) for row in sample if row.get(label) is not None]):
            return Labelled(single, label)
    return None
