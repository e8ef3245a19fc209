"""What every kind of file becomes: numbered rows of plain values, or the reason why one cannot be read."""

from collections import Counter
from collections.abc import Mapping, Sequence
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


def header(cells: Sequence[str], where: str) -> list[str]:
    """The columns that a header names. Raises DataError for one without a name, or a name that is there twice."""
    names = [cell.strip() for cell in cells]
    nameless = [str(place) for place, name in enumerate(names, 1) if not name]
    if nameless:
        raise DataError(f"{where}: the header has no name for column {', '.join(nameless[:12])}. "
                        "Name every column there, or delete those that are not needed.")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{where}: the header names {_quoted(twice)} more than once. Give each column a name of its own.")
    reason = fault(names)
    if reason:
        raise DataError(f"{where}: the names of the columns {reason}. Save the file again with a header of plain text.")
    return names


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"“{name[:60]}”" for name in names[:12])
