"""What is still being made, or removed: hidden names that begin alike. No half of it is offered; what a killed process left is known.

A worker clears its own folder when it begins, before it asks for free space, which leftovers would take from it.
"""

import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path

PREFIX = ".draft-"
FORGOTTEN_SECONDS = 24 * 3600
"""In a folder that several jobs share, a draft that nothing has changed for so long is nobody's."""


def named(folder: Path, name: str) -> Path:
    """Where `name` of `folder` is written before it takes its place."""
    return folder / f"{PREFIX}{name}"


def unique(folder: Path) -> Path:
    """The same for something that several jobs or threads may be writing at once."""
    return named(folder, secrets.token_hex(4))


def clear(folder: Path) -> None:
    """Remove all of a folder in which only the caller works."""
    for draft in folder.glob(f"{PREFIX}*"):
        remove(draft)


def clear_forgotten(folder: Path) -> None:
    """Remove what was left long ago in a folder that several jobs share."""
    for draft in folder.glob(f"{PREFIX}*"):
        with suppress(FileNotFoundError):  # another process is busy with it
            changed = max(path.lstat().st_ctime for path in (draft, *draft.rglob("*")))
            if time.time() - changed > FORGOTTEN_SECONDS:
                remove(draft)


def remove(draft: Path) -> None:
    """Remove a draft, a file or a folder, as far as that can be done."""
    if draft.is_dir() and not draft.is_symlink():
        shutil.rmtree(draft, ignore_errors=True)
    else:
        draft.unlink(missing_ok=True)
