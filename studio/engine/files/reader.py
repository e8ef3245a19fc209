"""Any file of rows that a person may have -> rows, streamed; what is wrong is told by line and in words.

Each kind of file is read by its own module. Here is what concerns all of them: what a file is.
"""

import re
import stat
import zipfile
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

from studio.engine.files import arrow, delimited, encoding, json_rows, parquet, sheets
from studio.engine.files.lines import How, Line
from studio.errors import DataError

COMPRESSED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"PK\x05\x06": "zip", b"\xfd7zXZ\0": "xz", b"(\xb5/\xfd": "zstd",
              b"7z\xbc\xaf'\x1c": "7-Zip", b"Rar!\x1a\x07": "RAR", b"\x04\x22\x4d\x18": "LZ4", b"BZh": "bzip2"}
BZIP2 = re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)")
WEB_PAGE = re.compile(rb"\s*<(!doctype|html|head|body|\?xml)\b", re.IGNORECASE)
OLD_EXCEL = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
HEAD = 512


class Rows(Iterator[Line]):
    """The rows of a file, one after the other; `remark` is what a person should know of how it is read, or nothing."""

    def __init__(self, lines: Iterator[Line], how: How):
        self._lines, self._how = lines, how

    def __next__(self) -> Line:
        return next(self._lines)

    @property
    def remark(self) -> str:
        return " ".join(self._how.remarks)

    @property
    def others(self) -> list[str]:
        """Sheets of the file that could be read instead."""
        return self._how.others


def rows(path: Path, how: How | None = None) -> Rows:
    """The rows of a file. Raises DataError at once for what concerns the whole file."""
    how = how or How()
    kind = _kind(path)
    if kind in TEXTS:
        how.encoding = encoding.settled(path, how)
    lines = READERS[kind](path, how)
    first = next(lines, None)
    if first is None:
        where = " below its header" if kind in TABLES else ""
        raise DataError(f"{path.name} holds no rows{where}. Choose a file with preference pairs.")
    return Rows(chain([first], lines), how)


def saved(folder: Path, split: str, how: How | None = None) -> Rows:
    """The rows of a folder that `save_to_disk` wrote, numbered through. Raises DataError."""
    how = how or How()
    files = arrow.saved(folder, split)

    def through() -> Iterator[Line]:
        done = 0
        for path in files:
            line = None
            for line in rows(path):
                yield line._replace(number=done + line.number)
            done += line.number if line else 0

    lines = through()
    first = next(lines)  # a file without rows has been refused by then
    return Rows(chain([first], lines), how)


# --- what a file is ---------------------------------------------------------------------------------------------------


def _kind(path: Path) -> str:
    """The suffix by which a file is read. Raises DataError if it is none of them or its first bytes are something else's."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "no file"
            raise DataError(f"{path.name or path} is {what}. Choose a file ending in {_types()}.")
        with open(path, "rb") as file:
            head = file.read(HEAD)
    except FileNotFoundError as error:
        raise DataError(f"There is no file {path}. Choose a file ending in {_types()}.") from error
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        reason = getattr(error, "strerror", "") or str(error)
        raise DataError(f"{path.name[:60]} cannot be opened ({reason}). Choose another file ending in {_types()}.") from error
    suffix = path.suffix.lower()
    _refuse_other_kinds(path, suffix, head)
    if suffix not in READERS:
        raise DataError(f"{path.name} is of a type that is not read. Choose a file ending in {_types()}.")
    if not head or (suffix in TEXTS and status.st_size < HEAD and not head.strip(b"\xef\xbb\xbf \t\r\n")):
        raise DataError(f"{path.name} is empty. Choose a file with preference pairs.")
    return suffix


def _types() -> str:
    return f"{', '.join(TYPES[:-1])} or {TYPES[-1]}"


def _refuse_other_kinds(path: Path, suffix: str, head: bytes) -> None:
    """Raises DataError for what the first bytes give away, whatever the name says. Nothing is unpacked."""
    packing = next((name for magic, name in COMPRESSED.items() if head.startswith(magic)), "tar" if head[257:262] == b"ustar" else "")
    if packing == "zip" and _is_workbook(path):
        if suffix != ".xlsx":
            raise DataError(f"{path.name} is compressed: it is an Excel workbook. Rename it to end in .xlsx, or save it as CSV.")
    elif packing and (packing != "bzip2" or BZIP2.match(head)):
        raise DataError(f"{path.name} is compressed ({packing}); unpack it first. Then choose the file that was in it.")
    elif head.startswith(OLD_EXCEL):
        raise DataError(f"{path.name} is an Excel workbook of the old kind or one with a password. "
                        "Open it in Excel and save it as .xlsx without a password, or as CSV.")
    elif suffix == ".xlsx" and head:
        raise DataError(f"{path.name} is no Excel workbook, whatever its name says. Save it as .xlsx, or give it the right ending.")
    elif head.startswith(b"PAR1") and suffix != ".parquet":
        raise DataError(f"{path.name} is a Parquet file. Rename it to end in .parquet.")
    elif suffix in TEXTS and (page := WEB_PAGE.match(head)):
        line = head[: page.start(1)].count(b"\n") + 1
        raise DataError(f"{path.name}, line {line}, begins a web page (HTML), not rows: a link's page was saved instead of its file. "
                        "Download the file itself and choose that.")


def _is_workbook(path: Path) -> bool:
    """By the archive's list of contents, which is at its end and small."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "[Content_Types].xml" in archive.NameToInfo and any(name.startswith("xl/") for name in archive.NameToInfo)
    except (zipfile.BadZipFile, OSError):
        return False


READERS: dict[str, Callable[[Path, How], Iterator[Line]]] = {
    ".jsonl": json_rows.rows, ".ndjson": json_rows.rows, ".json": json_rows.rows, ".csv": delimited.rows, ".tsv": delimited.rows,
    ".parquet": parquet.rows, ".arrow": arrow.rows, ".xlsx": sheets.rows}
TYPES = tuple(READERS)
"""The endings of the files that are read."""
TABLES = {".csv", ".tsv", ".xlsx"}
TEXTS = set(TYPES) - {".parquet", ".arrow", ".xlsx"}
