"""Hidden names, with a common prefix, for files and folders that are being written or deleted. Incomplete results are never offered,
and leftovers of a killed process can be recognized.

A worker clears its own folder when it starts, before it checks for free space.
"""

import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path

PREFIX = ".draft-"
FORGOTTEN_SECONDS = 24 * 3600
"""Age at which a draft in a shared folder counts as abandoned."""


def named(folder: Path, name: str) -> Path:
    """The path under which `folder / name` is written before it is renamed."""
    return folder / f"{PREFIX}{name}"


def unique(folder: Path) -> Path:
    """A path for a draft that several jobs or threads may write at the same time."""
    return named(folder, secrets.token_hex(4))


def clear(folder: Path) -> None:
    """Remove all drafts in a folder that only the caller writes to."""
    for draft in folder.glob(f"{PREFIX}*"):
        remove(draft)


def clear_forgotten(folder: Path) -> None:
    """Remove abandoned drafts in a folder that several jobs share."""
    for draft in folder.glob(f"{PREFIX}*"):
        with suppress(FileNotFoundError):  # another process is busy with it
            changed = max(path.lstat().st_ctime for path in (draft, *draft.rglob("*")))
            if time.time() - changed > FORGOTTEN_SECONDS:
                remove(draft)


def remove(draft: Path) -> None:
    """Remove a draft, file or folder, as far as possible."""
    if draft.is_dir() and not draft.is_symlink():
        shutil.rmtree(draft, ignore_errors=True)
    else:
        draft.unlink(missing_ok=True)
