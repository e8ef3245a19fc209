"""Answers that are rated: a list of them with numbers, ranks or a pick, or one a row that is called good or bad or has a number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from studio.errors import DataError
from studio.preferences.answers import LISTS, Couple, Picked, first, holds_text, number, plain
from studio.preferences.column_names import meaning, means, words
from studio.preferences.structure import Row, kind_of, mostly
from studio.preferences.turns import unzipped

TEXTS = ("response", "text", "content", "answer", "completion", "output", "generation", "message", "messages", "value", "reply")
SCORES = ("rating", "score", "fine-grained_score", "overall_score", "overall_rating", "pm_score", "reward", "quality",
          "ratings", "scores", "overall_scores", "rewards")
RANKS = ("rank", "ranking", "ranks", "rankings")
PICKS = ("choice", "chosen", "best", "best_index", "chosen_index", "preferred", "preferred_index", "winner", "selected", "label",
         "accept", "vote", "preference", "better")
SINGLES = ("completion", "response", "answer", "output", "generation", "messages", "conversations", "conversation", "text")
LABELS = ("label", "labels", "kto_tag", "desirable", "is_desirable", "good", "is_good", "thumbs", "feedback")
GRADES = (*SCORES, "helpfulness", "preference_score", "grade", "stars", "points", "upvotes")
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

    def of(self, row: Row) -> list[Couple]:
        """The best and the worst answer; of equals the first."""
        many = _listed(row.get(self.many))
        if self.text:
            rated = [(one.get(self.by), one.get(self.text)) for one in many if isinstance(one, Mapping)]
        else:
            numbers = row.get(self.by)
            if not isinstance(numbers, list | tuple) or len(numbers) != len(many):
                raise DataError("have another number of ratings than of answers")
            rated = list(zip(numbers, many, strict=True))
        found = [(worth, answer) for rating, answer in rated
                 if (worth := _grade(rating)) is not None and answer and not (isinstance(answer, str) and not answer.strip())]
        if len(found) < 2:
            raise DataError("have fewer than two rated answers")
        highest, lowest = max(found, key=_worth), min(found, key=_worth)
        if highest[0] == lowest[0]:
            raise DataError("have answers that are all rated the same")
        return [(lowest[1], highest[1]) if self.ranks else (highest[1], lowest[1])]

    def in_words(self) -> str:
        """How they are found; follows "the question from ..."."""
        best, worst = ("lowest", "highest") if self.ranks else ("highest", "lowest")
        return (f" and the answers from “{self.many}”: the one with the {best} “{self.by}” as the better, "
                f"the one with the {worst} as the worse")


def rated(sample: Sequence[Row], names: Sequence[str]) -> Rated | None:
    """A list of answers and what rates them, if the sample holds them."""
    for many in _lists(sample, names):
        fields, keys, text = _fields(sample, many)
        numeric = [key for key in keys if any(number(one.get(key)) is not None for one in fields)]
        beside = [name for name in names if any(_are_numbers(row.get(name)) for row in sample)]
        called = [key for key in keys if key != text and mostly(_grade(one.get(key)) is not None for one in fields) and key not in numeric]
        if text and len(called) == 1:
            return Rated(many, called[0], text)
        for wanted, ranks in ((SCORES, False), (RANKS, True)):
            if text and (by := first(wanted, fields, numeric)):
                return Rated(many, by, text, ranks)
            if not text and holds_text(many, sample) and (by := first(wanted, sample, beside)):
                return Rated(many, by, ranks=ranks)
    return None


def picked(sample: Sequence[Row], names: Sequence[str], vote: str = "") -> Picked | None:
    """A list of answers and the place or identity of the better one. Raises DataError if places could be counted from 0 or from 1."""
    for many in _lists(sample, names):
        if not mostly(isinstance(row[many], list | tuple) and len(row[many]) > 1 for row in sample if row.get(many) is not None):
            continue
        fields, keys, text = _fields(sample, many)
        usual = [vote] if vote else [name for want in PICKS for name in names if name != many and first((want,), sample, [name])]
        for pick in usual:
            values = [row[pick] for row in sample if row.get(pick) is not None]
            values = [value[0] if isinstance(value, list | tuple) and len(value) == 1 else value for value in values]
            identity = next((key for key in keys if key != text and values and mostly(
                any(plain(one.get(key)) == plain(value) for one in fields) for value in values)), "")
            if text and identity and not isinstance(values[0], list | tuple | Mapping):
                return Picked(many, pick, text, identity)
            places = {int(at) for value in values if (at := number(value)) is not None and at == int(at)}
            lengths = [len(value) for row in sample if isinstance(value := row.get(many), list | tuple)]
            if places and lengths and min(places) >= 0 and max(places) <= max(lengths) and mostly(number(at) is not None for at in values):
                return Picked(many, pick, text, base=_base(places, max(lengths), many, pick))
    return None


def _base(places: set[int], most: int, many: str, pick: str) -> int:
    if 0 in places or {"index", "idx"} & set(words(pick)):
        return 0
    if max(places) == most:
        return 1
    raise DataError(f"“{pick}” gives the better answer's place in “{many}”, but whether the first is 0 or 1 cannot be told. "
                    "Call the column “chosen_index” if it is counted from 0, or name the columns with both answers under Data.")


def _lists(sample: Sequence[Row], names: Sequence[str]) -> list[str]:
    """The columns that may hold all answers of a row."""
    usual = [name for want in LISTS for name in names if first((want,), sample, [name])]
    others = [name for name in names if name not in usual and means(name, "answer")
              and mostly(kind_of(row[name]) in ("texts", "structs") for row in sample if row.get(name) is not None)]
    return usual + others


def _fields(sample: Sequence[Row], many: str) -> tuple[list[Row], list[str], str]:
    """The structs of such a column, their fields, and the one with the text."""
    fields = [one for row in sample for one in _listed(row.get(many)) if isinstance(one, Mapping)]
    keys = list(dict.fromkeys(key for one in fields for key in one))
    return fields, keys, first(TEXTS, fields, keys)


def _listed(value: Any) -> Sequence[Any]:
    return unzipped(value) if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list | tuple) and any(number(item) is not None for item in value)


def _grade(value: Any) -> float | None:
    """The number that a rating is, or 1 and 0 for the words that call an answer preferred or not; None for anything else."""
    if (found := number(value)) is not None:
        return found
    said = meaning(value) if isinstance(value, str) and 0 < len(value) < 40 else None
    return float(said.better) if said and (said.better or said.worse) and not said.rest else None


def _worth(found: tuple[float, Any]) -> float:
    return found[0]


# --- one answer a row -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Labelled:
    """A column with one answer and one that calls it good or bad, or gives it a number. Two rows with the same question make a pair."""

    single: str
    label: str
    graded: bool = False
    """Whether it is a number, of which the higher is better."""

    def columns(self) -> dict[str, str]:
        """Column by role."""
        return {"single": self.single, "label": self.label}

    def of(self, row: Row) -> tuple[Any, float]:
        """The answer and how good it is: 1 or 0 for a label."""
        label = plain(row.get(self.label))
        if self.graded:
            if (grade := number(label)) is None:
                raise DataError("have no number that rates the answer")
            return row.get(self.single), grade
        if label not in GOOD and label not in BAD:
            raise DataError("have a label that is neither good nor bad")
        return row.get(self.single), float(label in GOOD)

    def in_words(self) -> str:
        """How they are found; follows "the question from ..."."""
        if self.graded:
            return (f" and single answers from “{self.single}”, which “{self.label}” rates: "
                    "two to the same question with different numbers become a pair, the higher the better")
        return (f" and single answers from “{self.single}”, which “{self.label}” calls good or bad: "
                "a good and a bad one to the same question become a pair")


def labelled(sample: Sequence[Row], names: Sequence[str], prompt: str = "") -> Labelled | None:
    """One answer a row and a label of two values, if the sample holds them; or a number, if questions are repeated."""
    single = first(SINGLES, sample, names)
    if not single or not holds_text(single, sample):
        return None
    usual = [name for want in LABELS for name in names if first((want,), sample, [name])]
    for label in (*usual, *(name for name in names if "thumbs" in words(name) or (meaning(name).better and not meaning(name).about))):
        if label != single and mostly([plain(row[label]) in (*GOOD, *BAD) for row in sample if row.get(label) is not None]):
            return Labelled(single, label)
    asked = [str(row[prompt]) for row in sample if row.get(prompt)] if prompt else []
    if len(set(asked)) == len(asked):
        return None
    grade = next((name for want in GRADES for name in names if first((want,), sample, [name]) and name != single
                  and mostly(number(row[name]) is not None for row in sample if row.get(name) is not None)), "")
    return Labelled(single, grade, graded=True) if grade else None
