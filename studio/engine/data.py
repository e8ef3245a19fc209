"""A dataset -> edited pairs -> those that are drawn for training and those that are held out.

Nothing is lost in silence: every row is a pair or is counted with the reason why it is none.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from datasets import load_dataset
from huggingface_hub import HfApi
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

from studio.engine.files import parquet, reader
from studio.engine.files.lines import Line, checked
from studio.engine.worker import about
from studio.errors import DataError
from studio.practice import PAIRS as PRACTICE_PAIRS
from studio.preferences import edits, formats
from studio.preferences.edits import Editor
from studio.preferences.findings import Seen
from studio.preferences.formats import Asked
from studio.preferences.pairs import Account, Pair
from studio.settings import PRACTICE, DataSettings

SAMPLE = 200
"""Rows by which a format is recognised."""
AT_ONCE = 1000


# --- rows -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """Where rows come from. `commit` is that of a Hub dataset, or empty; `lines` can be walked through once."""

    name: str
    commit: str
    lines: Iterator[Line]


def opened(settings: DataSettings, token: str | None = None) -> Source:
    """The source that the settings name. Raises DataError for one that cannot be read, at once or with the first row."""
    path = PRACTICE_PAIRS if settings.source == PRACTICE else Path(settings.source)
    if path.suffix.lower() in reader.TYPES or path.exists():
        return Source(path.name, "", reader.rows(path))
    with about(settings.source):
        return _hub(settings, token)


def _hub(settings: DataSettings, token: str | None) -> Source:
    """A Hub dataset at the commit that its revision names now, so that what is examined is what is learned from."""
    try:
        commit = HfApi(token=token).dataset_info(settings.source, revision=settings.revision or None).sha
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, OSError):  # the cache may have it
        commit = settings.revision
    try:
        rows = load_dataset(settings.source, settings.subset or None, split=settings.split, revision=commit or None, token=token)
    except ValueError as error:
        text = str(error)
        if "Unknown split" in text or "BuilderConfig" in text or "Config name is missing" in text:
            raise DataError(f"{settings.source} has no such part: {text.splitlines()[0][:200]} "
                            "Change subset or split in the form.") from error
        raise
    return Source(settings.source, commit, _numbered(rows))


def _numbered(rows) -> Iterator[Line]:
    number = 0
    for batch in rows.with_format("arrow").iter(AT_ONCE):
        for values in parquet.plain(batch):
            number += 1
            yield checked(number, values)


# --- pairs ------------------------------------------------------------------------------------------------------------


class Stream:
    """The pairs of a source as the edits leave them, one after the other; walked through once.

    `format` says how the rows are read. `account` and `editor` know what became of them, up to where one has come.
    """

    def __init__(self, settings: DataSettings, source: Source):
        self.source, self.account, self.editor = source, Account(), Editor(edits.parse(settings.edits))
        first = list(islice(source.lines, SAMPLE))
        sample = [line.values for line in first if line.values is not None]
        if not sample:
            raise DataError(f"{source.name} holds no rows that can be read{_first_reason(first)}. Choose a dataset with preference pairs.")
        names = list(dict.fromkeys(name for values in sample for name in values))
        self.format = formats.recognise(names, sample, Asked(settings.prompt_column, settings.chosen_column, settings.rejected_column))
        self._lines = chain(first, source.lines)

    def __iter__(self) -> Iterator[Seen]:
        for seen in self.editor.pairs(self._pairs()):
            self.account.pairs += 1
            yield seen
        self.account.edited = self.editor.dropped

    def _pairs(self) -> Iterator[Seen]:
        for number, pair, reason in self.format.read(self._rows()):
            if pair is not None:
                yield Seen(number, pair)
            elif reason:
                self.account.leave_out(number, reason)
            else:
                self.account.halves += 1

    def _rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, values, reason in self._lines:
            self.account.rows += 1
            if values is None:
                self.account.leave_out(number, reason)
            elif self.editor.lets_pass(values):
                yield number, values


def _first_reason(lines: list[Line]) -> str:
    return f": the first ones {lines[0].reason}" if lines else ""


def stream(settings: DataSettings, token: str | None = None) -> Stream:
    """The pairs of the source that the settings name. Raises DataError."""
    return Stream(settings, opened(settings, token))


@dataclass(frozen=True)
class Reading:
    """The pairs that a run draws, in their drawn order, and how they came to be."""

    found: list[Seen]
    stream: Stream

    @property
    def pairs(self) -> list[Pair]:
        return [seen.pair for seen in self.found]

    def in_words(self) -> list[str]:
        """What was recognised, what became of the rows, what was edited: a sentence or two each."""
        commit = f"{self.stream.source.name} is read at commit {self.stream.source.commit}." if self.stream.source.commit else ""
        told = (commit, self.stream.format.in_words(), self.stream.account.in_words(), self.stream.editor.in_words())
        return [words for words in told if words]


def read(settings: DataSettings, token: str | None = None) -> Reading:
    """The pairs that a run learns from and is measured on.

    Raises DataError if there are fewer than two, or rows that are no pair and may not be left out.
    """
    found = stream(settings, token)
    usable = list(found)
    if len(usable) < 2:
        raise DataError(f"{found.account.in_words()} At least two pairs are needed: check the columns, or choose another dataset.")
    if found.account.left_out and not settings.leave_out:
        raise DataError(f"Of {found.account.rows:,} rows some are no pairs: {found.account.reasons()}. "
                        "Repair them, or tick “Leave out unusable rows” under Data.")
    return Reading([usable[place] for place in drawn(len(usable), settings)], found)


def drawn(total: int, settings: DataSettings) -> list[int]:
    """The places of the pairs that are drawn of `total`, in their order."""
    return np.random.default_rng(settings.seed).permutation(total)[: settings.rows].tolist()


def held_out_count(total: int, settings: DataSettings) -> int:
    """How many of `total` pairs, the last of the drawn order, are kept away from training: at least one if a share is."""
    if settings.held_out == 0:
        return 0
    return min(max(1, round(total * settings.held_out)), total - 1)


def divided(reading: Reading, places: list[int], settings: DataSettings) -> tuple[list[int], list[int]]:
    """Of these places in the reading those to train on and those held out, without leaks if the edits drop them."""
    first = len(places) - held_out_count(len(places), settings)
    train, held_out = ([reading.found[place] for place in part] for part in (places[:first], places[first:]))
    kept = {seen.number for seen in reading.stream.editor.apart(train, held_out)}
    return places[:first], [place for place in places[first:] if reading.found[place].number in kept]


def write_pairs(path: Path, found: list[Pair]) -> None:
    """The pairs as JSONL, one explicit conversational row a line."""
    with open(path, "w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(pair.row(), ensure_ascii=False) + "\n" for pair in found)
