"""Two columns with answers of which numbers say which is better."""

from collections.abc import Sequence
from dataclasses import dataclass

from studio.errors import DataError
from studio.preferences.answers import Couple, number, plain
from studio.preferences.column_names import label_of, means, two_of, words
from studio.preferences.structure import Row, kind_of, mostly

SCORE_WORDS = ("score", "scores", "rating", "reward", "quality", "winner", "win", "overall", "preference")


@dataclass(frozen=True)
class Scored:
    """Two columns with answers, and for each one with a number: the higher is better, of `ranks` the lower.

    Both numbers may be in one column, as a list.
    """

    one: str
    other: str
    by_one: str
    by_other: str
    ranks: bool = False

    def columns(self) -> dict[str, str]:
        """Column by role."""
        return {"one": self.one, "other": self.other, "score of one": self.by_one, "score of other": self.by_other}

    def of(self, row: Row) -> list[Couple]:
        """The better and the worse answer."""
        one, other = (number(plain(row.get(by))) for by in (self.by_one, self.by_other))
        if self.by_one == self.by_other:
            both = row.get(self.by_one)
            one, other = map(number, both) if isinstance(both, list | tuple) and len(both) == 2 else (None, None)
        if one is None or other is None or one == other:
            raise DataError("have the same score for both answers, or none")
        both = row.get(self.one), row.get(self.other)
        return [both if (one > other) != self.ranks else both[::-1]]

    def in_words(self) -> str:
        """How they are found; follows "the question from ..."."""
        side = "lower" if self.ranks else "higher"
        return (f" and the answers from “{self.one}” and “{self.other}”; the better is the one with the {side} number in "
                f"“{self.by_one}”" + (f" and “{self.by_other}”" if self.by_other != self.by_one else ""))


def scored_by(sample: Sequence[Row], names: Sequence[str], one: str, other: str) -> Scored | None:
    """Numbers for both answers. Raises DataError if there are several kinds of them and none is the whole one's."""
    labels, found = label_of(one, other), []
    for by in two_of(names):
        numbers = all(mostly(number(plain(row.get(name))) is not None for row in sample if row.get(name) is not None)
                      and any(row.get(name) is not None for row in sample) for name in by)
        said = {word for word in words(by[0]) if word in SCORE_WORDS or word.startswith("rank")}
        if numbers and said and label_of(*by) == labels:
            found.append(Scored(one, other, *by, ranks=any(word.startswith("rank") for word in said)))
    for name in names:
        if {word for word in words(name) if word in SCORE_WORDS} and mostly(
                kind_of(row[name]) == "numbers" and len(row[name]) == 2 for row in sample if row.get(name) is not None):
            found.append(Scored(one, other, name, name))
    whole = [one for one in found if len(words(one.by_one)) <= 3 or means(one.by_one, "overall")]
    return whole[0] if len(whole) == 1 else found[0] if len(found) == 1 else None
