"""Excel workbooks -> rows of texts, streamed from the sheet that was named or holds the pairs."""

import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.engine.files.lines import LOOKED, MORE_CELLS, Header, How, Line, checked, header, header_at
from studio.errors import DataError

if TYPE_CHECKING:
    from openpyxl.workbook import Workbook

MAX_UNPACKED = 512 * 1024**2
"""Bytes that all parts of a workbook may have together once unpacked."""
MAX_RATIO, LARGE_PART = 200, 50 * 1000**2
"""A part of more than so many bytes that shrinks by more than the ratio holds no rows but the same thing over and over."""
MAX_ROWS = 1_048_576
"""The last row of an Excel sheet; a file that numbers one higher makes a reader count for hours."""
Begin = list[tuple[int, list[str]]]
"""The first rows of a sheet that hold anything, each with its number."""
ESCAPED = re.compile("_x([0-9A-Fa-f]{4})_")


def rows(path: Path, how: How) -> Iterator[Line]:
    """The rows below the header of the sheet that was named, or of the first with rows of use.

    Raises DataError for what is no workbook that can be read, and for a sheet that is not there.
    """
    with _workbook(path) as book:
        sheets = _filled(book, how.sheet)
        if not sheets:
            raise DataError(f"{path.name} has no sheet with content. Choose a workbook with a header and rows below it.")
        sheet, begin = _chosen(sheets, path.name, how)
        place = header_at([cells for _, cells in begin], how)
        at, cells = begin[place]
        if place:
            how.remarks.append(f"Row {at} of the sheet is read as the header; what stands above it is not used.")
        names = header(cells, f"{path.name}, sheet “{sheet.title}”, row {at}", how)
        for number, cells in _rows(sheet):
            if number > at:
                yield _line(number, cells, names)


def _chosen(sheets: list[tuple[Any, Begin]], name: str, how: How) -> tuple[Any, Begin]:
    """The sheet to read, with its first rows; says which others there are."""
    if how.sheet:
        found = next((one for one in sheets if one[0].title.strip().casefold() == how.sheet.strip().casefold()), None)
        if found is None:
            titles = ", ".join(f"“{sheet.title}”" for sheet, _ in sheets)
            raise DataError(f"{name} has no sheet “{how.sheet}” with content; there are {titles}. Enter one of these as the subset.")
    else:
        found = next((one for one in sheets if _is_of_use(one[1], how)), sheets[0])
    others = [f"“{sheet.title}”" for sheet, _ in sheets if sheet is not found[0] and sheet.sheet_state == "visible"]
    how.others += [sheet.title for sheet, begin in sheets if sheet is not found[0] and _is_of_use(begin, how)]
    if others:
        how.remarks.append(f"{name} has several sheets: “{found[0].title}” is read, not {', '.join(others)}. "
                           "To read another, enter its name as the subset.")
    return found


def _is_of_use(begin: Begin, how: How) -> bool:
    cells = [cells for _, cells in begin]
    place = header_at(cells, how)
    names = [cell.strip() for cell in cells[place]]
    rows = [{name: cell for name, cell in zip(names, row, strict=False) if name} for row in cells[place + 1 :]]
    return bool(rows) and how.fits([name for name in names if name], rows)


@contextmanager
def _workbook(path: Path) -> Iterator["Workbook"]:
    """The open workbook. What the library stumbles over meanwhile becomes a DataError."""
    from openpyxl import load_workbook  # a tenth of a second, which a run without sheets need not wait

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


def _filled(book: "Workbook", named: str) -> list[tuple[Any, Begin]]:
    """Each sheet that can be seen, or was named, and has content, with its first rows."""
    found = []
    for sheet in book.worksheets:
        if sheet.sheet_state == "visible" or sheet.title.strip().casefold() == named.strip().casefold():
            begin = list(islice(_rows(sheet), LOOKED))
            found += [(sheet, begin)] if begin else []
    return found


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


def _line(number: int, cells: list[str], names: Header) -> Line:
    if len(cells) > names.width:
        return Line(number, None, MORE_CELLS)
    return checked(number, names.row(cells))


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
