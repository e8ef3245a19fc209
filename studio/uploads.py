"""Files that a person brings: moved beside the runs under their content's hash, where they outlive the page's temporary ones.

They arrive in a folder of their sender's. Whatever else an event names as a file is refused: Gradio looks at such paths only on a
page that it serves itself, and takes any file of another user, or of this machine, on one that is mounted.
"""

import hashlib
import os
import shutil
import stat
from pathlib import Path
from typing import Any, BinaryIO

from studio.access import AccessError
from studio.errors import DataError

FOLDER = ".uploads"


def arriving(temporary: Path, visitor: str) -> Path:
    """The folder, below the studio's `temporary` one, in which a visitor's uploads arrive; without a name that of this machine's person."""
    return temporary / (f"of-{visitor}" if visitor else "here")


def refuse_others(given: Any, own: Path) -> None:
    """Raises AccessError where anything in the values of an event is named as a file and has not arrived in the folder `own`.

    A file is a mapping with a path, wherever it stands: in the value of a file field, of a conversation, of any other.
    """
    left = [given]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if "path" in value and not _has_arrived(value["path"], own):
                raise AccessError("This names a file that you have not uploaded, so it was not read. Upload the file.")
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)


def _has_arrived(path: Any, own: Path) -> bool:
    """Whether a path is, without any link, that of a regular file that an upload left in the folder."""
    if not isinstance(path, str) or "\0" in path or os.path.realpath(path) != path or Path(path).parent.parent != own:
        return False
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def opened(path: Path) -> BinaryIO:
    """An uploaded file, open for reading. Raises DataError for a link, a device or a folder, which is not even waited for."""
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    except OSError as error:
        raise DataError(f"The uploaded file cannot be read ({error.strerror}). Upload it again.") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise DataError("What was uploaded is not a file. Upload a file.")
    return file


def keep(root: Path, uploaded: Path) -> Path:
    """Where a file is kept from now on. It is moved, so that two gigabytes take the room of two. Raises DataError."""
    with opened(uploaded) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    kept = root / FOLDER / digest / uploaded.name
    kept.parent.mkdir(parents=True, exist_ok=True)
    draft = kept.with_name(f".{kept.name}")
    shutil.move(uploaded, draft)  # it may come from another file system
    draft.replace(kept)
    return kept


def kept(root: Path) -> list[Path]:
    """All kept files, the newest first."""
    found = [path for path in (root / FOLDER).glob("*/*") if not path.name.startswith(".")]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def is_kept(path: Path) -> bool:
    """Whether a path is that of a kept file, there or not."""
    return path.parent.parent.name == FOLDER


def discard(path: Path) -> bool:
    """Remove a kept file that cannot be used; True if it was one. A person's own files are never touched."""
    if not is_kept(path) or not path.is_file():
        return False
    shutil.rmtree(path.parent, ignore_errors=True)
    return True
