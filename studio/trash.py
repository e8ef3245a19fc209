"""Runs that somebody threw away: they lie in the trash of their room, whole, until they are put back or deleted."""

import os
import shutil
from pathlib import Path

from studio import jobs, names, runs, unfinished
from studio.errors import BusyError, StudioError
from studio.runs import Run

FOLDER = ".trash"


def throw_away(run: Run) -> None:
    """Move a run that has ended into its room's trash, or what cannot be read as one; a link is moved as such.

    Raises BusyError while anything works on it.
    """
    for kind in ("train", "merge", "gguf", "push"):
        state = jobs.status(jobs.of(run, kind))
        if state in jobs.ALIVE or (state == "queued" and (kind != "train" or _can_be_read(run))):
            raise BusyError("This run is not over, or is being merged, written or pushed. Stop it first, then throw it away.")
    folder = run.folder.parent / FOLDER
    if not runs.may_be_a_run(run.name):
        raise StudioError("This folder is the studio's own, so it was left where it is. Choose a run from the list.")
    if folder.is_symlink():
        raise StudioError("A link stands in the place of a folder there, so nothing was moved. Remove the link by hand.")
    folder.mkdir(exist_ok=True)
    if os.path.lexists(folder / run.name):
        raise StudioError(f"The trash holds a run {run.name} already. Put that one back, or delete it there.")
    os.replace(run.folder, folder / run.name)


def _can_be_read(run: Run) -> bool:
    """Whether a run that waits will ever begin."""
    try:
        return bool(run.stored) and not run.folder.is_symlink()
    except StudioError:
        return False


def thrown_away(room: Path) -> list[str]:
    """The names of the runs in a room's trash, the latest thrown away first."""
    folder = room / FOLDER
    if folder.is_symlink() or not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if names.RUN.fullmatch(path.name) and (path.is_dir() or path.is_symlink())]
    return [path.name for path in sorted(found, key=lambda path: path.lstat().st_ctime, reverse=True)]


def delete(room: Path, name: str) -> None:
    """Delete a thrown away run for good. Raises StudioError where it is not in the trash, or cannot be deleted."""
    if name not in thrown_away(room):
        raise StudioError(f"There is no run {str(name)[:80]!r} in the trash. Choose one from the list.")
    unfinished.clear_forgotten(room / FOLDER)
    gone = unfinished.unique(room / FOLDER)
    try:
        os.replace(room / FOLDER / name, gone)  # so that half of it is never put back
        shutil.rmtree(gone)
    except OSError as error:
        raise StudioError(f"Not all of run {name} could be deleted ({error.strerror}). "
                          f"Delete the rest in {gone.parent} by hand.") from error


def put_back(room: Path, name: str) -> Run:
    """Make a thrown away run one of the room's again. Raises StudioError where it is not there, or another has its name."""
    if name not in thrown_away(room):
        raise StudioError(f"There is no run {str(name)[:80]!r} in the trash. Choose one from the list.")
    if os.path.lexists(room / name):
        raise StudioError(f"Another run is called {name} by now. Throw that one away first.")
    os.replace(room / FOLDER / name, room / name)
    return Run(room / name)
