"""Two columns with answers of which neither is named as the better, and what says which one is: a vote, two scores, a column's name."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from studio.errors import DataError
from studio.preferences import column_names
from studio.preferences.answers import Couple, holds_text, is_prose, listed, number, plain, says_something
from studio.preferences.column_names import label_of, means, two_of, words
from studio.preferences.structure import Row, mostly

VOTE_NAMES = ("winner", "preference", "overall_preference", "preference_strength", "preferred", "better", "better_response",
              "better_response_id", "better_answer", "best", "chosen", "chosen_index", "chosen_id", "choice", "vote", "verdict",
              "judgment", "label", "labels", "safer_response_id")
TIES = frozenset(("", "tie", "draw", "equal", "same", "both", "neither", "none", "unsure", "skip", "unknown", "nopreference", "notsure",
                  "bothgood", "bothbad", "tiebothbad", "nan", "null"))
STEMS = ("model", "response", "answer", "assistant", "output", "completion", "option", "candidate", "choice", "text", "system", "reply",
         "conversation", "message")
PLACES = (("first", "left", "one"), ("second", "right", "two"))
SCORE_WORDS = ("score", "scores", "rating", "reward", "quality", "winner", "win", "overall", "preference")
LONGEST_MARK = 80
UNDECIDED = "have a tie, or no vote for one of the two answers"


def squeezed(mark: str) -> str:
    """A mark by its letters and digits alone, so that "Response-1", "response_1" and "[[response 1]]" are the same."""
    return re.sub(r"[\W_]+", "", mark)


def mark_of(value: Any) -> str:
    """What a vote says, as it compares: of several votes what most of them say, of ranks what is ranked first, of a struct its value."""
    if isinstance(value, Mapping):
        return mark_of(next((value[name] for name in ("value", "label", "choice", "selected") if value.get(name) is not None), None))
    if isinstance(value, list | tuple):
        ranked = [one for one in value if isinstance(one, Mapping) and number(one.get("rank")) is not None]
        if ranked:
            best = min(number(one["rank"]) or 0 for one in ranked)
            value = [one for one in ranked if number(one["rank"]) == best]
        votes = Counter(mark for one in value if (mark := mark_of(one))).most_common(2)
        return votes[0][0] if len(votes) == 1 or (votes and votes[0][1] > votes[1][1]) else ""
    return plain(value)


@dataclass(frozen=True)
class Voted:
    """Two columns with answers and one that says which is better: a mark of the first or second, or a sign.

    `signed` votes are numbers: below zero for the first, above for the second. `names` are two columns with names, one of
    which the vote repeats.
    """

    one: str
    other: str
    vote: str
    marks: tuple[tuple[str, ...], tuple[str, ...]]
    signed: bool = False
    names: tuple[str, ...] = ()

    def columns(self) -> dict[str, str]:
        """Column by role."""
        return {"one": self.one, "other": self.other, "vote": self.vote}

    def of(self, row: Row) -> list[Couple]:
        """The better and the worse answer."""
        value = mark_of(row.get(self.vote))
        if self.signed:
            sign = number(value) or 0
            better = None if sign == 0 else int(sign > 0)
        elif self.names:
            called = [mark_of(row.get(name)) for name in self.names]
            better = called.index(value) if value and called.count(value) == 1 else _place(value, self.marks)
        else:
            better = _place(value, self.marks)
        if better is None:
            raise DataError(UNDECIDED)
        both = row.get(self.one), row.get(self.other)
        return [(both[better], both[1 - better])]

    def in_words(self) -> str:
        """How they are found; follows "the question from ..."."""
        says = "below 0", "above 0"
        if self.names:
            says = tuple(f"what “{name}” is" for name in self.names)
        elif not self.signed:
            says = tuple(marks[0] for marks in self.marks)
        return (f" and the answers from “{self.one}” and “{self.other}”; "
                f"the better is the first where “{self.vote}” is {says[0]}, the second where it is {says[1]}")


def _place(value: str, marks: tuple[tuple[str, ...], tuple[str, ...]]) -> int | None:
    """0 for a mark of the first, 1 for one of the second, None for any other."""
    bare = squeezed(value)
    for place in (0, 1):
        if value in marks[place] or (bare and bare in map(squeezed, marks[place])):
            return place
    if len(value) > LONGEST_MARK:
        return None
    compared = re.fullmatch(r"\W*(\w+)\s*([<>])[<>=]*\s*(\w+)\W*", value)
    said = re.match(r"\W*(?:(?:model|response|answer|output)[\W_]*)?(\w)[\W_]+(?:(?:is|was|much|slightly) )*(?:better|wins)", value)
    winner = (compared[1] if compared[2] == ">" else compared[3]) if compared else said[1] if said else ""
    return next((place for place in (0, 1) if winner and winner in marks[place]), None)


@dataclass(frozen=True)
class Scored:
    """Two columns with answers, and for each one with a number: the higher is better, of `ranks` the lower."""

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
        one, other = number(plain(row.get(self.by_one))), number(plain(row.get(self.by_other)))
        if one is None or other is None or one == other:
            raise DataError("have the same score for both answers, or none")
        both = row.get(self.one), row.get(self.other)
        return [both if (one > other) != self.ranks else both[::-1]]

    def in_words(self) -> str:
        """How they are found; follows "the question from ..."."""
        side = "lower" if self.ranks else "higher"
        return (f" and the answers from “{self.one}” and “{self.other}”; the better is the one with the {side} number in "
                f"“{self.by_one}” and “{self.by_other}”")


@dataclass(frozen=True)
class Pointed:
    """A column that holds the name of the column with the better answer, and one that does so for the worse."""

    chosen: str
    rejected: str
    texts: tuple[str, ...]

    def columns(self) -> dict[str, str]:
        """Column by role."""
        return {"chosen": self.chosen, "rejected": self.rejected} | {f"text {at}": name for at, name in enumerate(self.texts, 1)}

    def of(self, row: Row) -> list[Couple]:
        """The better and the worse answer."""
        values = [str(row.get(by)) for by in (self.chosen, self.rejected)]
        found = [next((name for name in self.texts if column_names.same(name, value)), "") for value in values]
        if not all(found):
            raise DataError("name a column that is not there")
        return [(row.get(found[0]), row.get(found[1]))]

    def in_words(self) -> str:
        """How they are found; follows "the question from ..."."""
        return f", the better answer from the column that “{self.chosen}” names and the worse from the one that “{self.rejected}” names"


# --- recognition ------------------------------------------------------------------------------------------------------


def two_answers(sample: Sequence[Row], names: Sequence[str]) -> list[tuple[str, str]]:
    """The columns that look like two answers of which neither is named as the better, the likeliest first."""
    found = [(one, other) for one, other in two_of(names)
             if _may_be_texts(one, other, sample) and all(says_something(name, sample) for name in (one, other))]
    return sorted(found, key=lambda both: (not means(both[0], "answer"), means(both[0], "about"), len(words(both[0]))))


def _may_be_texts(one: str, other: str, sample: Sequence[Row]) -> bool:
    """A column about answers, such as `model_a`, is one only if its values read like answers."""
    return not means(one, "about") or ("model" in words(one) and is_prose(one, sample) and is_prose(other, sample))


def pointed(sample: Sequence[Row], names: Sequence[str], chosen: str, rejected: str) -> Pointed | None:
    """Two columns whose values name other columns that hold texts."""
    if not chosen or not rejected:
        return None
    texts = [name for name in names if name not in (chosen, rejected) and holds_text(name, sample)]
    values = [str(row[by]) for row in sample for by in (chosen, rejected) if row.get(by) is not None]
    hits = {name for name in texts for value in values if column_names.same(name, value)}
    if len(hits) >= 2 and mostly(any(column_names.same(name, value) for name in hits) for value in values):
        return Pointed(chosen, rejected, tuple(name for name in texts if name in hits))
    return None


def voted(sample: Sequence[Row], names: Sequence[str], vote: str = "", both: tuple[str, str] | None = None) -> Voted | Scored | None:
    """Two answers and what says which is better, if the sample holds them. `vote` and `both` are columns that a person named.

    Raises DataError if several columns could be the vote, or the one that was named says nothing of these two.
    """
    couples = [both] if both else two_answers(sample, names)
    for one, other in couples:
        scored = None if vote else _scored(sample, names, one, other)
        if scored and {"winner", "win"} & set(words(scored.by_one)):  # one vote in two columns
            return scored
        found = [_vote(sample, names, one, other, vote)] if vote else _votes(sample, names, one, other)
        if any(found) or scored:
            return next(filter(None, found), scored)
    if vote and couples:
        told = ", ".join(f"“{mark[:40]}”" for mark in dict.fromkeys(mark_of(row.get(vote)) for row in sample) if mark)
        raise DataError(f"“{vote}” is named as the vote between “{couples[0][0]}” and “{couples[0][1]}”, but what it holds ({told[:200]}) "
                        "names neither of them. Name another column, or write A and B, or the names of the two columns, into it.")
    return None


def _votes(sample: Sequence[Row], names: Sequence[str], one: str, other: str) -> list[Voted]:
    """The votes between these two, the one to be taken first. Raises DataError if several could be it and nothing decides."""
    free = [name for name in names if name not in (one, other)]
    usual = [name for want in VOTE_NAMES for name in free if column_names.same(name.rsplit(".", 1)[-1], want)]
    if found := list(filter(None, (_vote(sample, names, one, other, name) for name in usual))):
        return found
    by_name = [name for name in free if means(name, "vote") and name not in usual]
    found = list(filter(None, (_vote(sample, names, one, other, name) for name in by_name)))
    found = [vote for vote in found if means(vote.vote, "overall")] or found
    if not found:
        found = list(filter(None, (_vote(sample, names, one, other, name) for name in free if name not in usual and not _is_scored(name))))
        found = [vote for vote in found if vote.names or _is_explicit(sample, vote)]
    if len({vote.vote for vote in found}) > 1:
        votes = listed([f"“{vote.vote}”" for vote in found])
        raise DataError(f"Several columns could say which of “{one}” and “{other}” is better: {votes}. "
                        "Name the one to go by as the vote column under Data.")
    return found


def _is_scored(name: str) -> bool:
    return means(name, "about") and not means(name, "vote")


def _is_explicit(sample: Sequence[Row], vote: Voted) -> bool:
    """Whether nearly all values name one of the two in letters, or a tie: what a column of any name must do to be taken for a vote."""
    marks = [mark_of(row.get(vote.vote)) for row in sample]
    places = {_place(mark, vote.marks) for mark in marks}
    return {0, 1} <= places and not any(mark.isdigit() for mark in marks) and not vote.signed and mostly(
        _place(mark, vote.marks) is not None or squeezed(mark) in TIES for mark in marks)


def _vote(sample: Sequence[Row], names: Sequence[str], one: str, other: str, vote: str) -> Voted | None:
    """The vote in that column, if it says anything of these two answers."""
    if vote in (one, other):
        return None
    seen = {mark_of(row.get(vote)) for row in sample}
    signed = any((number(value) or 0) < 0 for value in seen)
    marks = _marks(one, other, seen)
    if signed or any(_place(value, marks) is not None for value in seen if value):
        return Voted(one, other, vote, marks, signed)
    for called in two_of(names):
        if vote not in called and mostly(mark in [mark_of(row.get(name)) for name in called] or squeezed(mark) in TIES
                                         for row in sample if (mark := mark_of(row.get(vote)))) and seen - {""} - TIES:
            return Voted(one, other, vote, marks, names=called)
    return None


def _scored(sample: Sequence[Row], names: Sequence[str], one: str, other: str) -> Scored | None:
    """Numbers for both answers. Raises DataError if there are several kinds of them and none is the whole one's."""
    labels, found = label_of(one, other), []
    for by in two_of(names):
        numbers = all(mostly(number(plain(row.get(name))) is not None for row in sample if row.get(name) is not None)
                      and any(row.get(name) is not None for row in sample) for name in by)
        said = {word for word in words(by[0]) if word in SCORE_WORDS or word.startswith("rank")}
        if numbers and said and label_of(*by) == labels:
            found.append(Scored(one, other, *by, ranks=any(word.startswith("rank") for word in said)))
    whole = [one for one in found if len(words(one.by_one)) <= 3 or means(one.by_one, "overall")]
    return whole[0] if len(whole) == 1 else found[0] if len(found) == 1 else None


def _marks(one: str, other: str, seen: set[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a vote for the first and for the second may look like, the look that was seen first."""
    one, other = one.lower(), other.lower()
    if one.startswith("human_ref"):  # the Stanford human preferences write 1 where the first is preferred
        return ("1",), ("0",)
    numbers = {value for value in seen if value.isdigit()}
    if numbers:
        named_one, two = one.endswith("1"), "2" in numbers
        from_one = named_one and two if "0" in numbers else named_one or two  # the third number, if there is one, is a tie
        return (("1",), ("2",)) if from_one else (("0",), ("1",))
    labels = label_of(one, other) if (one, other) in two_of([one, other]) else (one, other)
    marks = _words(one, "a", labels[0], PLACES[0]), _words(other, "b", labels[1], PLACES[1])
    usual = next((alike for alike in zip(*marks, strict=False) if not seen.isdisjoint(alike)), (marks[0][0], marks[1][0]))
    return (usual[0], *marks[0]), (usual[1], *marks[1])


def _words(name: str, letter: str, label: str, places: Sequence[str]) -> tuple[str, ...]:
    """The words that name a column with one of two answers."""
    ends = dict.fromkeys((letter, label))
    return (letter, name, *places, *ends, name.rsplit(".", 1)[-1],
            *(f"{stem}{gap}{end}" for stem in STEMS for gap in ("_", " ", "") for end in ends))
