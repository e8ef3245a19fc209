"""Arrow files, as `save_to_disk` of the library datasets writes them -> rows; and which of them are in such a folder."""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from studio.engine.files.lines import How, Line
from studio.engine.files.parquet import BATCH_ROWS, lines_of
from studio.errors import DataError

STATE, SPLITS = "state.json", "dataset_dict.json"
"""What says which files a saved dataset has, and which splits lie beside each other."""


def rows(path: Path, how: How) -> Iterator[Line]:  # noqa: ARG001 - as all readers
    """The rows of one file, a few at a time. Raises DataError for one that is damaged or none."""
    done = 0
    try:
        with pa.memory_map(str(path)) as file:
            for batch in _batches(file):
                for start in range(0, batch.num_rows, BATCH_ROWS):
                    yield from lines_of(batch.slice(start, BATCH_ROWS), done + start + 1)
                done += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        where = f", after row {done:,}," if done else ""
        raise DataError(f"{path.name}{where} cannot be read as an Arrow file ({str(error).splitlines()[0][:100]}). "
                        "Save it again, or as Parquet with to_parquet.") from error


def _batches(file: pa.MemoryMappedFile) -> Iterator[pa.RecordBatch]:
    try:
        reader = pa.ipc.open_stream(file)
    except pa.ArrowInvalid:
        file.seek(0)
        whole = pa.ipc.open_file(file)
        for place in range(whole.num_record_batches):
            yield whole.get_batch(place)
        return
    yield from reader


def saved(folder: Path, split: str) -> list[Path]:
    """The Arrow files of a folder that `save_to_disk` wrote, in their order; of several splits those of the one that is named.

    Raises DataError for a folder that is none, or has no such split.
    """
    if (folder / SPLITS).is_file():
        splits = [name for name in _said(folder / SPLITS, "splits") if isinstance(name, str)]
        if split not in splits or Path(split).name != split:
            raise DataError(f"{folder.name} was saved with the splits {', '.join(splits)[:200]} and has no “{split}”. "
                            "Enter one of these as the split.")
        folder = folder / split
    if not (folder / STATE).is_file():
        raise DataError(f"{folder.name} is a folder and not one that save_to_disk wrote. Choose a file with preference pairs, "
                        "or such a folder.")
    names = [one.get("filename") for one in _said(folder / STATE, "_data_files") if isinstance(one, dict)]
    if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise DataError(f"{folder.name} names no files of its own in {STATE}. Save it again with save_to_disk.")
    if _said(folder / STATE, "_indices_data_files"):
        raise DataError(f"{folder.name} holds a selection of its rows that only the library datasets reads. Call flatten_indices() "
                        "on it and save it again.")
    return [folder / name for name in names]


def _said(path: Path, name: str) -> list:
    """A list in a JSON file; empty if it is not there."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path.parent.name}: {path.name} cannot be read. Save the dataset again with save_to_disk.") from error
    return (found.get(name) or []) if isinstance(found, dict) else []
