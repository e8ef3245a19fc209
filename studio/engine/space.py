"""Room on the disk: what a full one is told as, and a little kept back so that a run can still say it."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from studio.errors import NoSpaceError, disk_is_full
from studio.summary import size

RESERVE, BYTES = ".reserve", 64 * 1024
"""Enough for the last words of a job and its traceback."""


def set_aside(folder: Path) -> None:
    """Keep some room in a job's folder; nothing where the disk has none."""
    with suppress(OSError), open(folder / RESERVE, "wb") as file:
        file.write(os.urandom(BYTES))  # zeros take no room on disks that compress


def use_up(folder: Path) -> None:
    """Give that room back."""
    with suppress(OSError):
        (folder / RESERVE).unlink(missing_ok=True)


def refuse_if_short(needed: int, folder: Path, what: str, then: str) -> None:
    """Raises NoSpaceError if the disk under `folder` has fewer free bytes than `needed` for `what`; it ends with what to do `then`."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise NoSpaceError(f"{what} needs {needed / 1e9:.2f} GB and {free / 1e9:.2f} GB are free on its disk. "
                           f"Free some space, then {then}.")


def in_words(folder: Path, what: str = "", needed: float = 0) -> str:
    """What is missing where, and what to do."""
    free = size(shutil.disk_usage(folder).free) if shutil.disk_usage(folder).free else "no bytes"
    wants = f"{what} needs {size(needed)} and {free} are free" if what else f"{free} are free"
    return f"The disk is full: {wants} in {folder}. Free some space, then go on from there; what was saved before is untouched."


class told:
    """Context that turns a full disk into words about what did not fit."""

    def __init__(self, folder: Path, what: str, needed: float):
        self.folder, self.what, self.needed = folder, what, needed

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, trace) -> bool:
        if error is not None and not isinstance(error, NoSpaceError) and disk_is_full(error):
            raise NoSpaceError(in_words(self.folder, self.what, self.needed)) from error
        return False
