"""What every kind of file becomes: numbered rows of plain values, or the reason why one cannot be read."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

from studio.errors import DataError

MAX_CELL = 8 * 1024**2
"""Characters of one cell. A row with a longer one is left out: no model reads it, and it costs memory at every step."""
MAX_ROW = 32 * 1024**2
"""Characters of one row. What is longer is skipped without being held in memory."""

CUT_OFF = "are cut off: the file ends in the middle"
TOO_LONG = f"are longer than {MAX_ROW // 1024**2} MB"
MORE_CELLS = "have more cells than the header"


@dataclass
class How:
    """How a file is to be read, as far as a person said; `remarks` gathers, in sentences, what was decided besides.

    `fits(names, rows)` tells whether rows with such columns are of use: by it the sheet with the pairs is found, and the
    header below a title.
    """

    sheet: str = ""
    encoding: str = ""
    fits: Callable[[Sequence[str], Sequence[Mapping[str, Any]]], bool] = lambda names, rows: True
    remarks: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    """Sheets that hold rows of use as well."""


class Line(NamedTuple):
    """One row of a file, or why it is none.

    `number` counts from one: the line of the file on which a row of text begins, the place in a JSON list or a Parquet
    file, the sheet's own row number. `values` is None for a row that cannot be read; `reason` then reads after a count.
    """

    number: int
    values: dict[str, Any] | None
    reason: str = ""


def checked(number: int, values: dict[str, Any]) -> Line:
    """The row, unless a text in it would break what comes after."""
    reason = fault(values)
    return Line(number, None, reason) if reason else Line(number, values)


def fault(value: Any) -> str:
    """Why a value with all that is in it cannot be used, or nothing."""
    if isinstance(value, str):
        return _fault_of_text(value)
    if isinstance(value, Mapping):
        return next(filter(None, map(fault, chain(value, value.values()))), "")
    if isinstance(value, (list, tuple)):
        return next(filter(None, map(fault, value)), "")
    return ""


def _fault_of_text(text: str) -> str:
    if len(text) > MAX_CELL:
        return f"hold a cell of more than {MAX_CELL // 1024**2} MB"
    if "\0" in text:
        return "hold a NUL character"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "hold a broken character (a lone surrogate)"
    return ""


class Header(NamedTuple):
    """The columns of a table that have a name, each with its place; `width` counts all that the header has."""

    names: list[str]
    places: list[int]
    width: int

    def row(self, cells: Sequence[str]) -> dict[str, str]:
        """The cells of the named columns; what is missing at the end is empty."""
        return {name: cells[place] if place < len(cells) else "" for name, place in zip(self.names, self.places, strict=True)}


def header(cells: Sequence[str], where: str, how: How) -> Header:
    """The columns that a header names; one without a name is not used. Raises DataError for names that are there twice, or none."""
    named = [(cell.strip(), place) for place, cell in enumerate(cells) if cell.strip()]
    nameless = [str(place) for place, cell in enumerate(cells, 1) if not cell.strip()]
    names = [name for name, _ in named]
    if not names:
        raise DataError(f"{where}: the header has no name for any column. Name the columns there.")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{where}: the header names {_quoted(twice)} more than once. Give each column a name of its own.")
    reason = fault(names)
    if reason:
        raise DataError(f"{where}: the names of the columns {reason}. Save the file again with a header of plain text.")
    if nameless:
        columns = f"Columns {', '.join(nameless[:12])} have" if len(nameless) > 1 else f"Column {nameless[0]} has"
        how.remarks.append(f"{columns} no name in the header and {'are' if len(nameless) > 1 else 'is'} not used.")
    return Header(names, [place for _, place in named], len(cells))


LOOKED = 20
"""Records by which the header is told from titles above it."""


def header_at(records: Sequence[Sequence[str]], how: How) -> int:
    """Which of the first records is the header: the first, unless it has at most half as many cells as most, as a title has.

    records: the cells of the first records that are not blank.
    """
    filled = [sum(bool(cell.strip()) for cell in cells) for cells in records]
    usual = max(set(filled), key=lambda count: (filled.count(count), count), default=0)
    if not filled or filled[0] * 2 > usual or len(filled) < 3 or (filled[0] > 1 and how.fits(*_table(records, 0))):
        return 0
    full = [place for place, count in enumerate(filled) if count >= usual]
    for place in full[:5]:
        names, rows = _table(records, place)
        if len(set(names)) == len(names) and rows and how.fits(names, rows):
            return place
    return full[0]


def _table(records: Sequence[Sequence[str]], place: int) -> tuple[list[str], list[dict[str, str]]]:
    """The named columns and the rows, if the header is there."""
    names = [cell.strip() for cell in records[place]]
    rows = [{name: cell for name, cell in zip(names, cells, strict=False) if name} for cells in records[place + 1 :]]
    return [name for name in names if name], rows


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"“{name[:60]}”" for name in names[:12])
