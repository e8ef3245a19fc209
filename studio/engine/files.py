"""Any file of rows that a person may have -> rows, streamed; what is wrong is told by line and in words.

Each kind of file is read by its own module. Here is what concerns all of them: what a file is, and Parquet.
"""

import re
import stat
import zipfile
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from studio.engine import delimited, encoding, json_rows, sheets
from studio.engine.encoding import convert, looks_like
from studio.engine.lines import MAX_CELL, MAX_ROW, Line, checked
from studio.errors import DataError

__all__ = ["MAX_CELL", "MAX_ROW", "TYPES", "Line", "convert", "looks_like", "plain", "remark", "rows"]

COMPRESSED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"PK\x05\x06": "zip", b"\xfd7zXZ\0": "xz", b"(\xb5/\xfd": "zstd",
              b"7z\xbc\xaf'\x1c": "7-Zip", b"Rar!\x1a\x07": "RAR", b"\x04\x22\x4d\x18": "LZ4", b"BZh": "bzip2"}
BZIP2 = re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)")
WEB_PAGE = re.compile(rb"\s*<(!doctype|html|head|body|\?xml)\b", re.IGNORECASE)
OLD_EXCEL = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
HEAD = 512
BATCH = 16 * 1024**2
"""Bytes of a Parquet file, unpacked, that become rows at once."""
BATCH_ROWS = 256


def rows(path: Path) -> Iterator[Line]:
    """The rows of a file, one after the other. Raises DataError at once for what concerns the whole file."""
    kind = _kind(path)
    if kind in TEXTS:
        encoding.check(path)
    lines = READERS[kind](path)
    first = next(lines, None)
    if first is None:
        where = " below its header" if kind in TABLES else ""
        raise DataError(f"{path.name} holds no rows{where}. Choose a file with preference pairs.")
    return chain([first], lines)


def remark(path: Path) -> str:
    """What a person should know of how the file is read, in a sentence, or nothing. For a file that `rows` can read."""
    return sheets.remark(path) if path.suffix.lower() == ".xlsx" else ""


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


# --- Parquet ----------------------------------------------------------------------------------------------------------


def plain(batch: pa.RecordBatch | pa.Table) -> Iterator[dict[str, Any]]:
    """The rows of a batch as plain values. In lists of structs a name without a value is left out.

    Arrow gives all structs of a column the same names: a message that never had `tool_calls` comes back with None there.
    """
    for row in batch.to_pylist():
        yield {name: _bare(value) if isinstance(value, list) else value for name, value in row.items()}


def _bare(value: Any) -> Any:
    if isinstance(value, list):
        return [_bare(item) for item in value]
    if isinstance(value, dict):
        return {name: _bare(item) for name, item in value.items() if item is not None}
    return value


def _parquet(path: Path) -> Iterator[Line]:
    done = 0
    try:
        # Pages are read as they are needed; otherwise a whole row group would be in memory.
        with pq.ParquetFile(path, buffer_size=1024**2, pre_buffer=False) as file:
            names = file.schema_arrow.names
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise DataError(f"{path.name} has more than one column {', '.join(twice)}. Give each column a name of its own.")
            for batch in file.iter_batches(_batch_rows(file.metadata)):
                yield from _batch(batch, done + 1)
                done += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        where = f", after row {done:,}," if done else ""
        raise DataError(f"{path.name}{where} cannot be read as Parquet: {_parquet_fault(path, error)}. "
                        "Download or export it again.") from error


def _batch_rows(about: pq.FileMetaData) -> int:
    size = sum(about.row_group(place).total_byte_size for place in range(about.num_row_groups))
    return max(1, min(BATCH_ROWS, BATCH * about.num_rows // max(1, size)))


def _batch(batch: pa.RecordBatch, start: int) -> Iterator[Line]:
    """The rows of a batch; if one of them cannot become plain values, the others still do."""
    try:
        found = list(plain(batch))
    except (ValueError, OverflowError, pa.ArrowException) as error:  # text that is not UTF-8, times beyond Python's
        if batch.num_rows == 1:
            what = "text that is not UTF-8" if isinstance(error, UnicodeError) else "a value that cannot be read"
            yield Line(start, None, f"hold {what}")
            return
        for place in range(batch.num_rows):
            yield from _batch(batch.slice(place, 1), start + place)
        return
    for number, values in enumerate(found, start):
        yield checked(number, values)


def _parquet_fault(path: Path, error: Exception) -> str:
    with open(path, "rb") as file:
        begins = file.read(4) == b"PAR1"
        file.seek(-min(4, path.stat().st_size), 2)
        ends = file.read() == b"PAR1"
    if not begins:
        return "it is none, whatever its name says"
    return f"it is damaged ({str(error).splitlines()[0][:100]})" if ends else "it is cut off"


READERS: dict[str, Callable[[Path], Iterator[Line]]] = {
    ".jsonl": json_rows.rows, ".ndjson": json_rows.rows, ".json": json_rows.rows, ".csv": delimited.rows, ".tsv": delimited.rows,
    ".parquet": _parquet, ".xlsx": sheets.rows}
TYPES = tuple(READERS)
"""The endings of the files that are read."""
TABLES = {".csv", ".tsv", ".xlsx"}
TEXTS = set(TYPES) - {".parquet", ".xlsx"}
