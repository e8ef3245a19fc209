"""What a person names as a source -> its rows: the practice pairs, a file, or a Hub dataset at its commit."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import HfApi
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

from studio import hub_access, names, uploads
from studio.engine.files import parquet, reader
from studio.engine.files.lines import How, Line, checked
from studio.engine.worker import about
from studio.errors import DataError, EncodingDoubt
from studio.practice import PAIRS as PRACTICE_PAIRS
from studio.preferences.formats import Asked
from studio.preferences.mix import Part
from studio.preferences.recognition import recognise
from studio.preferences.structure import Row
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
    sheets: tuple[str, ...] = ()
    """Sheets of the workbook that hold pairs as well."""


def opened(part: Part, token: str | None = None) -> Source:
    """The source of that name. Raises DataError for one that cannot be read, at once or with the first row."""
    if part.source == PRACTICE:
        return Source("Practice pairs", "", reader.rows(PRACTICE_PAIRS))
    if names.is_path(part.source):
        return _file(part)
    with about(part.source):
        return _hub(part, token)


def _file(part: Part) -> Source:
    """The rows of a file, or of a folder that `save_to_disk` wrote. An upload that is of no use is removed."""
    path, how = Path(part.source), How(part.subset if part.source.lower().endswith(".xlsx") else "", part.encoding, _fits(part))
    try:
        lines = reader.saved(path, part.split) if path.is_dir() else reader.rows(path, how)
    except EncodingDoubt:
        raise
    except DataError as error:
        if not part.subset and not part.encoding and uploads.discard(path):
            raise DataError(f"{error} The upload was removed.") from error
        raise
    idle = "" if how.sheet or not part.subset else f"“{part.subset}” is entered as the subset, which {path.name} does not have."
    return Source(path.name, "", lines, " ".join(filter(None, (lines.remark, idle))), tuple(lines.others))


def _fits(part: Part) -> Callable[[Sequence[str], Sequence[Row]], bool]:
    """Whether rows with such columns hold pairs, as far as a few of them show it."""
    def fits(names: Sequence[str], rows: Sequence[Row]) -> bool:
        try:
            recognise(names, rows, Asked(part.prompt, part.chosen, part.rejected, part.vote))
        except DataError:
            return False
        return True

    return fits


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
