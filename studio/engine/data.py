"""A dataset -> pairs -> training and held-out splits.

Nothing is lost in silence: each function that leaves rows out says how many and why.
"""

import json
from pathlib import Path

from datasets import Dataset, load_dataset

from studio import pairs
from studio.engine.worker import about
from studio.errors import DataError
from studio.pairs import Pair, Reading
from studio.practice import PAIRS as PRACTICE_PAIRS
from studio.settings import PRACTICE, DataSettings

LOADERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}


def load_rows(settings: DataSettings, token: str | None = None) -> Dataset:
    """All rows of the source. Raises DataError for a file that cannot be read or holds none."""
    path = PRACTICE_PAIRS if settings.source == PRACTICE else Path(settings.source)
    if path.suffix.lower() in LOADERS:
        rows = _load_file(path)
    else:
        with about(settings.source):
            rows = _load_from_hub(settings, token)
    if len(rows) == 0:
        raise DataError(f"{settings.source} holds no rows. Choose a dataset with preference pairs.")
    return rows


def _load_file(path: Path) -> Dataset:
    if not path.is_file():
        raise DataError(f"There is no file {path}. Choose another file, or upload it again.")
    if path.stat().st_size == 0:
        raise DataError(f"{path.name} is empty. Choose a file with preference pairs.")
    try:
        return load_dataset(LOADERS[path.suffix.lower()], data_files=str(path), split="train")
    except Exception as error:  # the loaders raise whatever their parser raises
        if "corresponds to no data" in str(error):
            raise DataError(f"{path.name} holds no rows. Choose a file with preference pairs.") from error
        first_line = str(error.__cause__ or error).strip().splitlines()[0][:200]
        raise DataError(f"{path.name} cannot be read as {path.suffix[1:].upper()}: {first_line}. "
                        "Repair the file, or save it anew as JSONL.") from error


def _load_from_hub(settings: DataSettings, token: str | None) -> Dataset:
    try:
        return load_dataset(settings.source, settings.subset or None, split=settings.split,
                            revision=settings.revision or None, token=token)
    except ValueError as error:
        text = str(error)
        if "Unknown split" in text or "BuilderConfig" in text or "Config name is missing" in text:
            raise DataError(f"{settings.source} has no such part: {text.splitlines()[0][:200]} "
                            "Change subset or split in the form.") from error
        raise


def read(settings: DataSettings, token: str | None = None) -> tuple[pairs.Columns, Reading]:
    """The drawn rows as pairs, with how they were recognised. Raises DataError if there are fewer than two."""
    rows = load_rows(settings, token)
    columns = pairs.recognise(rows.column_names, settings.prompt_column, settings.chosen_column, settings.rejected_column)
    rows = rows.shuffle(seed=settings.seed)
    if settings.rows is not None:
        rows = rows.select(range(min(settings.rows, len(rows))))
    reading = pairs.read(rows, columns)
    if len(reading.pairs) < 2:
        raise DataError(f"{reading.in_words()} At least two pairs are needed: check the columns, or choose another dataset.")
    return columns, reading


def held_out_count(total: int, settings: DataSettings) -> int:
    """How many of `total` pairs, the last of the drawn order, are kept away from training: at least one if a share is."""
    if settings.held_out == 0:
        return 0
    return min(max(1, round(total * settings.held_out)), total - 1)


def write_pairs(path: Path, found: list[Pair]) -> None:
    """The pairs as JSONL, one explicit conversational row a line."""
    with open(path, "w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(pair.row(), ensure_ascii=False) + "\n" for pair in found)
