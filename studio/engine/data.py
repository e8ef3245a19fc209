"""Sources -> edited pairs -> those that are drawn for training and those that are held out.

Nothing is lost in silence: every row is a pair or is counted with the reason why it is none.
"""

import json
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from studio import fingerprints, plan, unfinished
from studio.engine import drawing, sources
from studio.engine.files.lines import Line
from studio.engine.sources import Source
from studio.errors import DataError
from studio.fingerprints import Fingerprint
from studio.preferences import edits
from studio.preferences.edits import Editor
from studio.preferences.facets import Facets
from studio.preferences.findings import Seen
from studio.preferences.formats import Asked, Format
from studio.preferences.mix import Part
from studio.preferences.pairs import Account, Pair
from studio.preferences.recognition import recognise
from studio.settings import DataSettings
from studio.shelf import Shelf, Shelving

LAID = f"{unfinished.PREFIX}pairs-"
SAMPLE = 200
"""Rows by which a format is recognised."""
UNCHECKED = ("The edits name rows by number and do not say which data they were made for: that the numbers fit these data was not "
             "checked.")


@dataclass(eq=False)
class Opened:
    """A source that has been looked into: how its rows are read, and the rows. `last` is the number its latest row was given."""

    part: Part
    source: Source
    format: Format
    names: list[str]
    lines: Iterator[Line]
    last: int = 0

    @classmethod
    def of(cls, part: Part, source: Source) -> "Opened":
        """Recognises the format by the first rows. Raises DataError."""
        first = list(islice(source.lines, SAMPLE))
        sample = [line.values for line in first if line.values is not None]
        if not sample:
            raise DataError(f"{source.name} holds no rows that can be read{_first_reason(first)}. Choose a dataset with preference pairs.")
        names = list(dict.fromkeys(name for values in sample for name in values))
        found = recognise(names, sample, Asked(part.prompt, part.chosen, part.rejected, part.vote))
        return cls(part, source, found, names, chain(first, source.lines))

    def in_words(self) -> str:
        """What it is and how its rows are read."""
        commit = f"{self.source.name} is read at commit {self.source.commit}." if self.source.commit else ""
        return " ".join(filter(None, (commit, self.source.remark, self.format.in_words())))


def _first_reason(lines: list[Line]) -> str:
    return f": the first ones {lines[0].reason}" if lines else ""


class Stream:
    """The pairs of all sources as weights and edits leave them, one after the other; walked through once.

    Rows are numbered through: the second source's first row follows the first one's last. `account`, `editor` and
    `facets` know what became of the rows, up to where one has come.
    """

    def __init__(self, settings: DataSettings, token: str | None = None):
        self.seed, self.account, self.editor = settings.seed, Account(), Editor(edits.parse(settings.edits))
        self.opened = [Opened.of(part, sources.opened(part, token)) for part in settings.parts]
        names = list(dict.fromkeys(name for one in self.opened for name in one.names))
        self.editor.check_columns(names)
        self.facets = Facets([name for one in self.opened for name in one.format.unused])
        self._refuse_edits_of_other_data(settings)

    def _refuse_edits_of_other_data(self, settings: DataSettings) -> None:
        self.unchecked = "" if settings.edits_for or not any(edit.rows for edit in self.editor.edits) else UNCHECKED
        if settings.edits and settings.edits_for:
            fingerprints.refuse_others(settings.edits_for, settings.parts, self.fingerprints())

    def fingerprints(self) -> list[Fingerprint | None]:
        """Of each source what it holds; None where that cannot be known. Reads the files once more."""
        return [fingerprints.of(one.part, one.source.commit) for one in self.opened]

    @property
    def name(self) -> str:
        """What the sources are called."""
        return " and ".join(one.source.name for one in self.opened)

    @property
    def commits(self) -> str:
        """The commits at which Hub datasets are read, as far as there are any."""
        return ", ".join(one.source.commit for one in self.opened if one.source.commit)

    def in_words(self) -> str:
        """How the rows of each source are read; of several, also which numbers its rows have, once they have been walked through."""
        if len(self.opened) == 1:
            return self.opened[0].in_words()
        starts = [0, *(one.last for one in self.opened)]
        return " ".join(f"{one.source.name} (rows {start + 1:,} to {one.last:,}, weight {one.part.weight:g}): {one.in_words()}"
                        for start, one in zip(starts, self.opened, strict=False))

    def __iter__(self) -> Iterator[Seen]:
        for seen in self.editor.pairs(chain.from_iterable(map(self._pairs, self.opened))):
            self.account.pairs += 1
            yield seen
        self.account.edited = self.editor.dropped

    def _pairs(self, one: Opened) -> Iterator[Seen]:
        before = 0
        for number, pair, reason in one.format.read(self._rows(one)):
            self.account.further += number == before  # another worse answer of the same row
            before = number
            if pair is None and reason:
                self.account.leave_out(number, reason)
            elif pair is None:
                self.account.halves += 1
            elif not one.part.copies(self._chance(number)):
                self.account.undrawn += 1
            else:
                yield Seen(number, pair)

    def _rows(self, one: Opened) -> Iterator[tuple[int, dict[str, Any]]]:
        before = self.opened[self.opened.index(one) - 1].last if one is not self.opened[0] else 0
        for number, values, reason in one.lines:
            one.last = before + number
            self.account.rows += 1
            if values is None:
                self.account.leave_out(one.last, reason)
            elif self.editor.lets_pass(one.last, values):
                self.facets.see(values)
                yield one.last, values

    def copies(self, number: int) -> int:
        """How often the pair of that row is learned from, by its source's weight. For rows that have been walked through."""
        place = bisect_left([one.last for one in self.opened], number)
        return self.opened[place].part.copies(self._chance(number))

    def _chance(self, number: int) -> float:
        """From 0 to 1, the same for the same row and seed wherever it is asked for."""
        return int.from_bytes(blake2b(f"{self.seed} {number}".encode(), digest_size=4).digest()) / 2**32


# --- drawing ----------------------------------------------------------------------------------------------------------


class Drawn(Sequence[Seen]):
    """Pairs in their drawn order, read from disk when they are asked for; their folder goes when nobody holds them any more."""

    def __init__(self, folder: TemporaryDirectory, held_out: Sequence[bool], places: list[int]):
        self._folder, self._shelf = folder, Shelf(Path(folder.name))
        self._held_out, self._places = held_out, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, place):
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        at = self._places[place]
        row = self._shelf[at]
        return Seen(row["number"], Pair.of_row(row), bool(self._held_out[at]))

    def number(self, place: int) -> int:
        """The row of the pair there."""
        return self._shelf.numbers[self._places[place]]

    def is_held_out(self, place: int) -> bool:
        """Whether an edit holds the pair there out."""
        return bool(self._held_out[self._places[place]])


class Pairs(Sequence[Pair]):
    """The same without their numbers."""

    def __init__(self, found: Drawn):
        self._found = found

    def __len__(self) -> int:
        return len(self._found)

    def __getitem__(self, place):
        found = self._found[place]
        return [seen.pair for seen in found] if isinstance(place, slice) else found.pair


@dataclass(frozen=True)
class Reading:
    """The pairs that a run draws, in their drawn order, and how they came to be; the last `held_out` are kept from training.

    `rules` are those by which they were drawn, see `plan.RULES`.
    """

    found: Drawn
    stream: Stream
    held_out: int
    rules: int = plan.RULES

    @property
    def pairs(self) -> Pairs:
        return Pairs(self.found)

    def in_words(self) -> list[str]:
        """What was recognised, what became of the rows, what was edited: a sentence or two each."""
        told = (self.stream.in_words(), self.stream.account.in_words(), self.stream.editor.in_words(), self.stream.unchecked)
        return [words for words in told if words]


def read(settings: DataSettings, token: str | None = None, folder: Path | None = None, rules: int = plan.RULES) -> Reading:
    """The pairs that a run learns from and is measured on, laid down in a folder of their own inside `folder`.

    Raises DataError if there are fewer than two to learn from, or rows that are no pair and may not be left out.
    """
    stream, laid = Stream(settings, token), TemporaryDirectory(prefix=LAID, dir=folder)
    shelving, held_out, keys = Shelving(Path(laid.name)), bytearray(), array("Q")
    for seen in stream:
        shelving.add(seen.number, seen.pair.row())
        held_out.append(seen.held_out)
        keys.append(drawing.key(seen.pair, settings.seed))
    shelving.close()
    if held_out.count(False) < 2:
        raise DataError(f"{stream.account.in_words()} At least two pairs to learn from are needed: check the columns and edits, "
                        "or choose another dataset.")
    if stream.account.left_out and not settings.leave_out:
        raise DataError(f"Of {stream.account.rows:,} rows some are no pairs: {stream.account.reasons()}. "
                        "Repair them, or tick “Leave out unusable rows” under Data.")
    places, count = drawing.drawn(keys, held_out, settings, rules)
    return Reading(Drawn(laid, held_out, places), stream, count, rules)


def divided(reading: Reading, places: list[int], settings: DataSettings) -> tuple[list[int], list[int]]:
    """Of these places in the reading those to train on, as often as the weights say, and those held out, each once.

    Places that are missing, of pairs too long to learn from, change nothing about the others. Leaks are gone if the edits drop them.
    """
    found = reading.found
    first = sum(place < len(found) - reading.held_out for place in places)
    if reading.rules == 1:
        marked = sum(map(found.is_held_out, places))
        first = len(places) - (marked or plan.held_out_for(len(places), settings.held_out, rules=1))
    leaks = reading.stream.editor.leaks(map(found.__getitem__, places[:first]), map(found.__getitem__, places[first:]))
    repeated = [place for place in places[:first] for _ in range(reading.stream.copies(found.number(place)))]
    return repeated, [place for place in places[first:] if found.number(place) not in leaks]


def write_pairs(path: Path, found: list[Pair]) -> None:
    """The pairs as JSONL, one explicit conversational row a line."""
    with open(path, "w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(pair.row(), ensure_ascii=False) + "\n" for pair in found)
