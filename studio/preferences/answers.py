"""Where a row keeps its better and its worse answer: in columns of their own, or in a list.

They are found by what the names of the columns say together with the values of a sample; `of` gives a row's better and
worse answers as they are, couple by couple.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from studio.errors import DataError
from studio.preferences import column_names
from studio.preferences.column_names import meaning, words
from studio.preferences.structure import Row, kind_of, mostly

Couple = tuple[Any, Any]
"""A better and a worse answer, as the row has them."""
LISTS = ("completions", "responses", "answers", "candidates", "generations", "outputs", "summaries", "options", "choices", "texts",
         "replies")
"""Columns that may hold all answers of a row."""
NAME = re.compile(r"[a-z]{2}[\w.]*[-_/](?=[\w./:@+-]*\d)[\w./:@+-]{1,80}|https?://\S+|[0-9a-f]{16,64}"
                  r"|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
"""A model's name, an address or an identity: one word that begins with letters and goes on with a dividing sign and digits."""


def first(wanted: Sequence[str], sample: Sequence[Row], names: Sequence[str]) -> str:
    """The first of the wanted names that is a column, by its words; one with text goes before an empty one or numbers.

    A column that is a struct's field goes by its own name too, after those that are columns.
    """
    found = [name for want in wanted for name in names if column_names.same(name, want)]
    found += [name for want in wanted for name in names if "." in name and column_names.same(name.rsplit(".", 1)[1], want)]
    return max(found, key=lambda name: _fitness(name, sample), default="")


def holds_text(name: str, sample: Sequence[Row]) -> bool:
    """Whether a row of the sample has a text, a turn or a list there."""
    return _fitness(name, sample) == 2


def _fitness(name: str, sample: Sequence[Row]) -> int:
    """2 for text, turns or lists, 1 for nothing at all, 0 for anything else."""
    values = [row[name] for row in sample if row.get(name) is not None]
    return 1 if not values else 2 * any(isinstance(value, str | list | tuple | Mapping) for value in values)


def is_name(text: str) -> bool:
    """Whether a text is a model's name, an address or an identity."""
    return len(text) <= 120 and NAME.fullmatch(text) is not None


def says_something(name: str, sample: Sequence[Row]) -> bool:
    """Whether a column holds what somebody wrote, rather than the names of models, numbers, labels or identities."""
    values = [row[name] for row in sample if row.get(name) not in (None, "")]
    if not values or not any(isinstance(value, str | list | tuple | Mapping) for value in values):
        return False
    if any(kind_of(value) in ("turns", "texts") for value in values):
        return True
    texts = [value for value in values if isinstance(value, str)]
    return bool(texts) and not mostly(is_name(text.strip()) for text in texts)


def is_prose(name: str, sample: Sequence[Row]) -> bool:
    """Whether most values are turns, or texts of some length or with the end of a sentence."""
    values = [row[name] for row in sample if row.get(name) not in (None, "")]
    return mostly(kind_of(value) == "turns" or (isinstance(value, str) and (len(value) > 60 or value.rstrip()[-1:] in tuple(".!?。！？…")))
                  for value in values)


def listed(names: Sequence[str]) -> str:
    """The names in a sentence, the first dozen."""
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "") or "none"


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


def each(value: Any) -> Iterator[Any]:
    """The answers that a value holds: the texts of a list, the conversations of one, or itself."""
    if isinstance(value, list | tuple) and len(value) > 1 and all(isinstance(one, str | None) for one in value):
        yield from (one for one in value if one and one.strip())
    elif isinstance(value, list | tuple) and value and all(isinstance(one, list | tuple) and kind_of(one) == "turns" for one in value):
        yield from value
    else:
        yield value


# --- a column for each ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Named:
    """A column for the better and one for the worse answer; `more` are further columns with worse ones."""

    chosen: str
    rejected: str
    more: tuple[str, ...] = ()
    implied: bool = False
    """Whether only the worse answer is named as such, and the column beside it is taken as the better."""

    def columns(self) -> dict[str, str]:
        """Column by role."""
        return {"chosen": self.chosen, "rejected": self.rejected} | {f"rejected {at}": name for at, name in enumerate(self.more, 2)}

    def of(self, row: Row) -> list[Couple]:
        """The better answer with each of the worse."""
        worse = [row.get(self.rejected), *(row[name] for name in self.more if row.get(name) not in (None, ""))]
        return [(row.get(self.chosen), one) for one in worse]

    def in_words(self) -> str:
        """How they are found; follows "the question from ..."."""
        worse = f"“{self.rejected}”" + "".join(f" and “{name}”" for name in self.more)
        how = ", beside which only the worse is named as such," if self.implied else ""
        return f", the better answer from “{self.chosen}”{how} and the worse from {worse}"


def named(sample: Sequence[Row], names: Sequence[str], chosen: str = "", rejected: str = "") -> Named:
    """The columns for the better and the worse answer, empty where there is none.

    Names that differ only in the word for better or worse go first, then words that are opposites, then the usual ones.
    """
    own = {name: meaning(name.rsplit(".", 1)[-1] if "." in name else name) for name in names}
    # A whole path may say it too: {"better": {"text": ...}}.
    own |= {name: meaning(name) for name in names if "." in name and not (own[name].better or own[name].worse)}
    good = [chosen] if chosen else [name for name in names if own[name].better and not own[name].about]
    bad = [rejected] if rejected else [name for name in names if own[name].worse and not own[name].about]

    def rank(one: str, other: str) -> tuple:
        a, b = own[one], own[other]
        unknown = sum(not column_names.meanings(word) for word in (*a.rest, *b.rest))
        return (-_fitness(one, sample) - _fitness(other, sample), a.rest != b.rest, unknown, not column_names.belong_together(a, b),
                column_names.FAMILIES.index(f"{a.family} {b.family}") if column_names.belong_together(a, b) else 0)

    couples = sorted(((one, other) for one in good for other in bad if one != other), key=lambda both: rank(*both))
    if not couples:
        return Named(max(good, key=lambda name: _fitness(name, sample), default=""),
                     max(bad, key=lambda name: _fitness(name, sample), default=""))
    one, other = couples[0]
    more = () if rejected else tuple(name for name in bad if name != other and name[-1:].isdigit() and _stem(name) == _stem(other))
    return Named(one, other, more)


def _stem(name: str) -> tuple[str, ...]:
    """The words of a name without the number at its end."""
    found = words(name)
    return found[:-1] if found and found[-1].isdigit() else found


def implied(sample: Sequence[Row], names: Sequence[str], rejected: str) -> str:
    """The better answer where only the worse is named: the column called the same but for that word, or the end of a conversation."""
    rest = meaning(rejected).rest
    free = [name for name in names if name != rejected and not meaning(name).worse and not meaning(name).about]
    same = [name for name in free if rest and meaning(name).rest == rest]
    ends = [name for name in free if column_names.means(name, "answer") and mostly(map(_ends_answered, _values(name, sample)))]
    alone = [name for name in free if set(meaning(name).also) == {"answer"} and len(words(name)) == 1 and is_text(name, sample)]
    return next((found[0] for found in (same, ends, alone) if len(found) == 1), "")


def is_text(name: str, sample: Sequence[Row]) -> bool:
    """Whether the values are texts that somebody wrote."""
    return says_something(name, sample) and mostly(isinstance(value, str) for value in _values(name, sample))


def _values(name: str, sample: Sequence[Row]) -> list[Any]:
    return [row[name] for row in sample if row.get(name) is not None]


def _ends_answered(value: Any) -> bool:
    """Whether a value is a conversation with a question, and it ends with the assistant's turn."""
    from studio.preferences import turns

    try:
        found = turns.turns(value, "user") if isinstance(value, list | tuple | Mapping) else []
    except DataError:
        return False
    return len(found) > 1 and turns.is_whole(found) and found[-1]["role"] == "assistant"


# --- a list of both ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ordered:
    """A column with lists of two answers, the better one first."""

    both: str

    def columns(self) -> dict[str, str]:
        """Column by role."""
        return {"both": self.both}

    def of(self, row: Row) -> list[Couple]:
        """The better and the worse answer."""
        both = row.get(self.both)
        if not isinstance(both, list | tuple) or len(both) != 2:
            raise DataError("hold something else than two answers")
        return [(both[0], both[1])]

    def in_words(self) -> str:
        """How they are found; follows "the question from ..."."""
        return f" and both answers from “{self.both}”, of which the first is taken as the better"


def ordered(sample: Sequence[Row], names: Sequence[str]) -> Ordered | None:
    """A column “output” with two answers in each row, as LLaMA-Factory writes comparisons."""
    both = first(("output",), sample, names)
    values = [row[both] for row in sample if row.get(both) is not None] if both else []
    fits = mostly([isinstance(value, list | tuple) and list(map(type, value)) == [str, str] for value in values])
    return Ordered(both) if fits else None


@dataclass(frozen=True)
class Picked:
    """A column with a list of answers and one that says which of them is the better, by its place or its identity.

    Each of the others is a worse one. `base` is the number of the first place.
    """

    many: str
    pick: str
    text: str = ""
    identity: str = ""
    base: int = 0

    def columns(self) -> dict[str, str]:
        """Column by role."""
        return {"many": self.many, "vote": self.pick}

    def of(self, row: Row) -> list[Couple]:
        """The picked answer with each of the others."""
        many, pick = row.get(self.many), row.get(self.pick)
        many = many if isinstance(many, list | tuple) else ()
        pick = pick[0] if isinstance(pick, list | tuple) and len(pick) == 1 else pick
        if self.identity:
            places = [at for at, one in enumerate(many) if isinstance(one, Mapping) and plain(one.get(self.identity)) == plain(pick)]
        else:
            at = number(pick)
            places = [int(at) - self.base] if at is not None and at == int(at) and 0 <= at - self.base < len(many) else []
        if len(places) != 1:
            raise DataError("have no vote for one of the answers")
        texts = [one.get(self.text) if self.text and isinstance(one, Mapping) else one for one in many]
        return [(texts[places[0]], one) for at, one in enumerate(texts) if at != places[0]]

    def in_words(self) -> str:
        """How they are found; follows "the question from ..."."""
        how = f"by its “{self.identity}”" if self.identity else f"counted from {self.base}"
        return f" and the answers from “{self.many}”: the better is the one that “{self.pick}” names, {how}, the others are worse"
