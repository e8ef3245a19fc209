"""What a person names as a source -> its rows: the practice pairs, a file, or a Hub dataset at its commit."""

from collections.abc import Iterator
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import HfApi
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

from studio import hub_access, names, uploads
from studio.engine.files import parquet, reader
from studio.engine.files.lines import Line, checked
from studio.engine.worker import about
from studio.errors import NOT_UTF8, DataError
from studio.practice import PAIRS as PRACTICE_PAIRS
from studio.preferences.mix import Part
from studio.settings import PRACTICE

AT_ONCE = 1000


@dataclass(frozen=True)
class Source:
    """Where rows come from. `commit` is that of a Hub dataset, or empty; `lines` can be walked through once.

    `remark` is what a person should know of how the file is read, or empty.
    """

    name: str
    commit: str
    lines: Iterator[Line]
    remark: str = ""


def opened(part: Part, token: str | None = None) -> Source:
    """The source of that name. Raises DataError for one that cannot be read, at once or with the first row."""
    if part.source == PRACTICE:
        return Source("Practice pairs", "", reader.rows(PRACTICE_PAIRS))
    if names.is_path(part.source):
        return _file(Path(part.source))
    with about(part.source):
        return _hub(part, token)


def _file(path: Path) -> Source:
    try:
        lines = reader.rows(path)
    except DataError as error:
        if NOT_UTF8 not in str(error) and uploads.discard(path):
            raise DataError(f"{error} The upload was removed.") from error
        raise
    return Source(path.name, "", lines, reader.remark(path))


def _hub(part: Part, token: str | None) -> Source:
    """A Hub dataset at the commit that its revision names now, so that what is examined is what is learned from."""
    if hub_access.is_asked():
        hub_access.refuse_without(part.source, "dataset", token)
    try:
        commit = HfApi(token=token).dataset_info(part.source, revision=part.revision or None).sha
    except (OfflineModeIsEnabled, LocalEntryNotFoundError, OSError):  # the cache may have it
        commit = part.revision
    from datasets import load_dataset  # pandas comes with it: slow, and a file does not need it

    try:
        # A folder of the same name must not be taken for it: what lies around here may be somebody else's.
        with TemporaryDirectory() as nowhere, chdir(nowhere):
            rows = load_dataset(part.source, part.subset or None, split=part.split, revision=commit or None, token=token)
    except ValueError as error:
        text = str(error)
        if "Unknown split" in text or "BuilderConfig" in text or "Config name is missing" in text:
            raise DataError(f"{part.source} has no such part: {text.splitlines()[0][:200]} "
                            "Change subset or split in the form.") from error
        raise
    return Source(part.source, commit, _numbered(rows))


def _numbered(rows) -> Iterator[Line]:
    number = 0
    for batch in rows.with_format("arrow").iter(AT_ONCE):
        for values in parquet.plain(batch):
            number += 1
            yield checked(number, values)
