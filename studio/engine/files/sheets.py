"""Excel workbooks -> rows of texts, streamed from the first sheet that holds anything."""

import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from openpyxl import load_workbook
from openpyxl.workbook import Workbook

from studio.engine.files.lines import MORE_CELLS, Line, checked, header
from studio.errors import DataError

MAX_UNPACKED = 512 * 1024**2
"""Bytes that all parts of a workbook may have together once unpacked."""
MAX_RATIO, LARGE_PART = 200, 50 * 1000**2
"""A part of more than so many bytes that shrinks by more than the ratio holds no rows but the same thing over and over."""
MAX_ROWS = 1_048_576
"""The last row of an Excel sheet; a file that numbers one higher makes a reader count for hours."""
ESCAPED = re.compile("_x([0-9A-Fa-f]{4})_")


def rows(path: Path) -> Iterator[Line]:
    """The rows below the header of the first sheet with content. Raises DataError for what is no workbook that can be read."""
    with _workbook(path) as book:
        found = next(_filled(book), None)
        if found is None:
            raise DataError(f"{path.name} has no sheet with content. Choose a workbook with a header and rows below it.")
        sheet, at, cells = found
        names = header(cells, f"{path.name}, sheet “{sheet.title}”, row {at}")
        for number, cells in _rows(sheet):
            if number > at:
                yield _line(number, cells, names)


def remark(path: Path) -> str:
    """Which sheet is read and which are not, in a sentence, if there is a choice."""
    with _workbook(path) as book:
        read, *others = [sheet.title for sheet, *_ in _filled(book)] or [""]
    if not others:
        return ""
    return f"{path.name} has several sheets: “{read}” is read, not {', '.join(f'“{title}”' for title in others)}."


@contextmanager
def _workbook(path: Path) -> Iterator[Workbook]:
    """The open workbook. What the library stumbles over meanwhile becomes a DataError."""
    try:
        with open(path, "rb") as file:
            _refuse_bombs(file, path.name)
            book = load_workbook(file, read_only=True, data_only=True, keep_links=False)
            try:
                yield book
            finally:
                book.close()
    except DataError:
        raise
    except Exception as error:  # a broken part raises whatever the parser of that part does
        raise DataError(f"{path.name} cannot be read as an Excel workbook ({type(error).__name__}: {str(error)[:100]}). "
                        "Open it in Excel and save it again, or as CSV.") from error


def _refuse_bombs(file: Any, name: str) -> None:
    """Raises DataError for an archive that would fill the memory, by the sizes in its directory alone.

    The sizes can be believed: the reader of a part stops at the size that the directory gives.
    """
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
    if sum(part.file_size for part in parts) > MAX_UNPACKED:
        raise DataError(f"{name} unpacks to more than {MAX_UNPACKED // 1024**2} MB. Save its rows as CSV or Parquet.")
    for part in parts:
        if part.file_size > LARGE_PART and part.file_size > MAX_RATIO * part.compress_size:
            raise DataError(f"{name} is packed more than {MAX_RATIO} times, as no sheet of texts is. Save its rows as CSV or Parquet.")


def _filled(book: Workbook) -> Iterator[tuple[Any, int, list[str]]]:
    """Each sheet that can be seen and has content, with the number and the cells of its first row."""
    for sheet in book.worksheets:
        if sheet.sheet_state == "visible" and (first := next(_rows(sheet), None)):
            yield sheet, *first


def _rows(sheet: Any) -> Iterator[tuple[int, list[str]]]:
    """The rows that hold anything, each with its number and as long as its last cell."""
    sheet.reset_dimensions()  # what the sheet says of its own size is often wrong
    for number, values in enumerate(sheet.iter_rows(values_only=True), 1):
        if number > MAX_ROWS:
            raise DataError(f"Sheet “{sheet.title}” numbers its rows higher than Excel can. Open it in Excel and save it again.")
        cells = [as_text(value) for value in values]
        while cells and not cells[-1].strip():
            cells.pop()
        if cells:
            yield number, cells


def _line(number: int, cells: list[str], names: list[str]) -> Line:
    if len(cells) > len(names):
        return Line(number, None, MORE_CELLS)
    return checked(number, dict(zip(names, cells + [""] * (len(names) - len(cells)), strict=True)))


def as_text(value: Any) -> str:
    """A cell as a person reads it in the sheet: whole numbers without a point, days without midnight."""
    if value is None:
        return ""
    if isinstance(value, str):
        return ESCAPED.sub(lambda found: chr(int(found[1], 16)), value) if "_x" in value else value
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else format(value, ".15g")
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat(" ")
    return value.isoformat() if isinstance(value, (date, time)) else str(value)
