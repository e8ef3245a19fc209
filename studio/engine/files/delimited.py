"""CSV and TSV -> rows: every cell arrives as the text that it is, and a row that cannot be read says why."""

import csv
import io
import re
from collections import deque
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple, TextIO

from studio.engine.files.encoding import opened
from studio.engine.files.lines import CUT_OFF, LOOKED, MAX_ROW, MORE_CELLS, TOO_LONG, Header, How, Line, checked, header, header_at
from studio.errors import DataError

SEPARATORS = (",", ";", "\t", "|")
SAMPLE = 256 * 1024
"""Characters by which the separator is found."""
SAMPLE_RECORDS = 50
MAX_LINES = 100_000
"""Lines that one record may go over: as many short ones cost far more memory than their characters."""
MISPLACED = "have a quotation mark in the wrong place"
OPEN = "open a quotation mark that is not closed"
ANNOUNCED = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)

csv.field_size_limit(MAX_ROW)  # the module's own limit of 128 KB is shorter than long answers


class _Record(NamedTuple):
    """The cells that begin on a line, or why they cannot be told apart."""

    number: int
    cells: list[str]
    reason: str = ""


def rows(path: Path, how: How) -> Iterator[Line]:
    """The rows below the header. Raises DataError for a header that cannot be used and a quotation mark that never closes."""
    separator, announced = _separator(path, how)
    with _text(path, how) as text:
        every = _records(_Lines(text, path.name), separator)
        if announced:
            next(every)
        records = (record for record in every if record.reason or not _is_blank(record.cells))
        begin = []
        for record in islice(records, LOOKED):  # what never closes is told when it is come to
            begin.append(record)
            if record.reason:
                break
        if not begin:
            return
        at = header_at([record.cells for record in begin if not record.reason], how)
        first, records = begin[at], chain(begin[at + 1 :], records)
        if at:
            how.remarks.append(f"Line {first.number} is read as the header; what stands above it is not used.")
        where = f"{path.name}, line {first.number}"
        if first.reason:
            raise DataError(f"{where}: the header cannot be read, its cells {first.reason}. Repair that line.")
        if first.cells[0].startswith(('{"', "[{")):
            raise DataError(f"{where}, is JSON and not a header. Rename the file to end in .jsonl or .json.")
        names = header(first.cells, where, how)
        for record in records:
            yield _line(record, names)


def _text(path: Path, how: How) -> TextIO:
    # A character that the file's end cuts in two becomes half of one, which `checked` reports.
    return io.TextIOWrapper(opened(path, how.encoding), "utf-8", errors="surrogateescape", newline="")


def _is_blank(cells: list[str]) -> bool:
    return not cells or (len(cells) == 1 and not cells[0].strip())


def _line(record: _Record, names: Header) -> Line:
    number, cells, reason = record
    if not reason and len(cells) != names.width:
        reason = MORE_CELLS if len(cells) > names.width else "have fewer cells than the header"
    if reason:
        return Line(number, None, reason)
    return checked(number, names.row(cells))


# --- the separator ----------------------------------------------------------------------------------------------------


def _separator(path: Path, how: How) -> tuple[str, bool]:
    """What divides the cells, and whether the first line only announces it, as spreadsheets write it.

    It is what divides the header and then most of the first records into as many cells. Cells full of commas do not
    mislead: they divide neither the header nor all records alike.
    """
    with _text(path, how) as text:
        sample = text.read(SAMPLE)
        whole = not text.read(1)
    if announced := ANNOUNCED.match(sample):
        return announced[1], True
    scores = {}
    for separator in SEPARATORS:
        widths = _widths(sample, separator)
        widths = widths if whole or len(widths) < 2 else widths[:-1]  # the last record may be cut
        begins = next((place for place, width in enumerate(widths[:5]) if width > 1), None)  # a title above has one cell
        if begins is not None:
            widths = widths[begins:]
            scores[separator] = (widths.count(widths[0]) / len(widths) - 0.1 * begins, widths[0])
    return max(scores, key=scores.__getitem__, default=","), False


def _widths(sample: str, separator: str) -> list[int]:
    """How many cells the first records have; 0 for one whose quotation marks do not fit."""
    reader, widths = csv.reader(io.StringIO(sample, newline=""), delimiter=separator, strict=True), []
    while len(widths) < SAMPLE_RECORDS:
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error:
            widths.append(0)
            continue
        if not _is_blank(cells):
            widths.append(len(cells))
    return widths


# --- records ----------------------------------------------------------------------------------------------------------


class _TooLong(Exception):
    """The record has more than a row may have; the text says of what, as a reason."""


class _Lines:
    """The lines of a text for csv.reader, which takes several for a record with line breaks in its cells.

    They are counted, and bounded for one record; those after a record's first can be given out again.
    """

    def __init__(self, text: TextIO, name: str):
        self._text, self._name, self._again = text, name, deque()
        self._given, self._taken, self._size = 0, [], 0
        self.ended = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._text.readline(MAX_ROW)
        if not line:
            self.ended = True
            raise StopIteration
        self._given += 1
        self._taken.append(line)
        self._size += len(line)
        if self._size >= MAX_ROW:
            raise _TooLong(TOO_LONG)
        if len(self._taken) >= MAX_LINES:
            raise _TooLong(f"go over more than {MAX_LINES:,} lines")
        return line

    def begin(self) -> int:
        """Start a record; the number of its first line."""
        self._taken, self._size = [], 0
        return self._given + 1

    def again(self) -> bool:
        """Give out the lines after the record's first once more; whether there were any."""
        after = self._taken[1:]
        self._again.extendleft(reversed(after))
        self._given -= len(after)
        return bool(after)

    def never_closed(self) -> DataError:
        """The error for a quotation mark that is still open at the file's end, with the line where it opens."""
        opens, is_open = 0, False
        for place, line in enumerate(self._taken):
            marks = line.replace('""', "").count('"')  # a doubled mark is text, or an empty cell
            is_open ^= marks % 2 == 1
            if marks and is_open:
                opens = place
        return self._never_closed(self._given - len(self._taken) + 1 + opens)

    def skip(self) -> None:
        """Go to the end of a record that is too long, without keeping it."""
        first = self._given - len(self._taken) + 1
        is_open, ended = sum(line.count('"') for line in self._taken) % 2 == 1, self._taken[-1].endswith(("\n", "\r"))
        self._taken = []
        while is_open or not ended:
            piece = self._again.popleft() if self._again else self._text.readline(1 << 20)
            if not piece and is_open:
                raise self._never_closed(first)
            if not piece:
                return
            self._given += ended
            is_open, ended = is_open ^ (piece.count('"') % 2 == 1), piece.endswith(("\n", "\r"))

    def _never_closed(self, number: int) -> DataError:
        return DataError(f"{self._name}, line {number}: a quotation mark opens there and never closes, so that all that follows "
                         "is one cell. Close it, or write a mark that belongs to the text twice.")


def _records(lines: _Lines, separator: str) -> Iterator[_Record]:
    reader = csv.reader(lines, delimiter=separator, strict=True)
    while True:
        number = lines.begin()
        try:
            record = _Record(number, next(reader))
        except StopIteration:
            return
        except _TooLong as reason:
            lines.skip()
            record = _Record(number, [], str(reason))
        except csv.Error:
            record = _Record(number, [], _misquoted(lines))
        yield record


def _misquoted(lines: _Lines) -> str:
    """Why the marks of a record do not fit. Only its first line is given up: the next may well be a whole record."""
    if lines.ended:
        error = lines.never_closed()
        if lines.again():
            raise error
        return CUT_OFF
    return OPEN if lines.again() else MISPLACED
