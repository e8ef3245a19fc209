"""Pairs -> a Parquet file that every reader takes for the same pairs: messages are lists of structs.

Arrow gives all structs of a column the same fields. A turn with tools has more of them than others, so the fields are
learned from the pairs before the first is written.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from studio.engine.files.parquet import plain
from studio.errors import DataError
from studio.preferences.findings import Seen

BATCH_ROWS, BATCH_CHARACTERS = 500, 16 * 1024**2
"""What is in memory at once, whichever is reached first."""
NO_COLUMNS = ("The tool calls in these pairs hold values of different kinds under one name, which the columns of a Parquet file "
              "cannot keep as they are. Export the pairs as JSONL, which can.")
TOOLS = "tools"
UNFIT = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError)


class Turns:
    """The columns that hold every turn seen so far: role, content, and what turns with tools have besides."""

    def __init__(self):
        self.type = pa.struct([("role", pa.string()), ("content", pa.string())])
        self.with_tools = False

    def seen_in(self, found: Iterable[Seen]) -> Iterator[Seen]:
        """The pairs as they pass. Raises DataError at one whose turns fit into no columns with those before."""
        for seen in found:
            pair = seen.pair
            self.with_tools = self.with_tools or bool(pair.tools)
            if more := [turn for turn in chain(pair.prompt, pair.chosen, pair.rejected) if len(turn) > 2]:
                self._widen(more)
            yield seen

    def _widen(self, more: list[dict[str, Any]]) -> None:
        try:
            both = [pa.schema({"turn": kind}) for kind in (self.type, pa.infer_type(more))]
            self.type = pa.unify_schemas(both, promote_options="permissive").field("turn").type
        except UNFIT as error:
            raise DataError(NO_COLUMNS) from error

    def schema(self, with_split: bool = False) -> pa.Schema:
        """The columns of a file of pairs."""
        split = {"split": pa.string()} if with_split else {}
        tools = {TOOLS: pa.string()} if self.with_tools else {}
        return pa.schema({name: pa.list_(self.type) for name in ("prompt", "chosen", "rejected")} | tools | split)


def write(path: Path, lines: Iterable[str], turns: Turns, with_split: bool = False) -> None:
    """Rows given as lines of JSON, as a Parquet file. Raises DataError for values that no column keeps as they are."""
    schema = turns.schema(with_split)
    try:
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for rows in _batches(lines):
                rows = [_with_text(row) for row in rows] if TOOLS in schema.names else rows
                batch = pa.RecordBatch.from_pylist(rows, schema)
                # Arrow makes 5 into 5.0 and drops what it has no field for, in silence.
                if _written(plain(batch)) != _written(rows):
                    raise DataError(NO_COLUMNS)
                writer.write_batch(batch)
    except UNFIT as error:
        raise DataError(NO_COLUMNS) from error


def _with_text(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its tools as JSON in a text: each tool's parameters have fields of their own, which no column could keep apart."""
    return row | {TOOLS: json.dumps(row[TOOLS], ensure_ascii=False) if row.get(TOOLS) else None}


def _written(rows: Iterable[dict[str, Any]]) -> str:
    return json.dumps(list(rows), sort_keys=True)


def _batches(lines: Iterable[str]) -> Iterator[list[dict[str, Any]]]:
    rows, size = [], 0
    for line in lines:
        rows.append(json.loads(line))
        size += len(line)
        if len(rows) == BATCH_ROWS or size >= BATCH_CHARACTERS:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows
