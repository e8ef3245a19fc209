"""Parquet files -> rows; a batch at a time, so that a row group of gigabytes does not have to fit into memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from studio.engine.files.lines import How, Line, checked
from studio.errors import DataError

BATCH = 16 * 1024**2
"""Bytes of a Parquet file, unpacked, that become rows at once."""
BATCH_ROWS = 256


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


def rows(path: Path, how: How) -> Iterator[Line]:  # noqa: ARG001 - as all readers
    done = 0
    try:
        # Pages are read as they are needed; otherwise a whole row group would be in memory.
        with pq.ParquetFile(path, buffer_size=1024**2, pre_buffer=False) as file:
            names = file.schema_arrow.names
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise DataError(f"{path.name} has more than one column {', '.join(twice)}. Give each column a name of its own.")
            for batch in file.iter_batches(_batch_rows(file.metadata)):
                yield from lines_of(batch, done + 1)
                done += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        where = f", after row {done:,}," if done else ""
        raise DataError(f"{path.name}{where} cannot be read as Parquet: {_parquet_fault(path, error)}. "
                        "Download or export it again.") from error


def _batch_rows(about: pq.FileMetaData) -> int:
    size = sum(about.row_group(place).total_byte_size for place in range(about.num_row_groups))
    return max(1, min(BATCH_ROWS, BATCH * about.num_rows // max(1, size)))


def lines_of(batch: pa.RecordBatch, start: int) -> Iterator[Line]:
    """The rows of a batch; if one of them cannot become plain values, the others still do."""
    try:
        found = list(plain(batch))
    except (ValueError, OverflowError, pa.ArrowException) as error:  # text that is not UTF-8, times beyond Python's
        if batch.num_rows == 1:
            what = "text that is not UTF-8" if isinstance(error, UnicodeError) else "a value that cannot be read"
            yield Line(start, None, f"hold {what}")
            return
        for place in range(batch.num_rows):
            yield from lines_of(batch.slice(place, 1), start + place)
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
