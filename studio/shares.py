"""What one user may have of a studio: disk, waiting runs, processes, waiting events, pages. The person at a machine without users has all.

A share is looked at before anything is begun, so that what one user fills is never what another waits for.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from studio import processes, runs
from studio.errors import BusyError, NoSpaceError
from studio.run_index import Index

WORKING = ("*/merge", "*/gguf", "*/push", ".two_steps", ".examined/*", ".examined/*/export")
"""Where workers of a room's owner may be, beside the runs, of which one trains at a time."""
MEASURED_SECONDS = 10
"""For which the size of a room is taken to be what it was."""


@dataclass(frozen=True)
class Shares:
    """The share of each user."""

    disk: float = 200e9
    """Bytes of runs, uploads and all else in the user's room, the trash included."""
    waiting: int = 5
    """Runs that wait or train."""
    processes: int = 3
    """Merges, exports, examinations and the like at once."""
    events: int = 60
    """Of the page's, that wait to be worked on."""
    pages: int = 500
    """Of which is known whose they are."""


each = Shares()
"""Those of this process."""
_measured: dict[Path, tuple[float, int]] = {}


def give(shares: Shares) -> None:
    """Let these be the shares of each user from now on."""
    global each
    each = shares


def size(folder: Path) -> int:
    """Bytes that a folder takes on the disk. Links are not followed."""
    total, left = 0, [folder]
    while left:
        try:
            with os.scandir(left.pop()) as entries:
                for entry in entries:
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        left.append(Path(entry.path))
        except OSError:  # it went meanwhile
            continue
    return total


def refuse_disk(room: Path, coming: int = 0) -> None:
    """Raises NoSpaceError where a user's room, with so many bytes more, would be larger than their share."""
    if not runs.owner_of(room):
        return
    now, (since, taken) = time.monotonic(), _measured.get(room, (0.0, -1))
    if taken < 0 or now - since > MEASURED_SECONDS:
        taken = size(room)
        _measured[room] = (now, taken)
    if taken + coming > each.disk:
        raise NoSpaceError(f"Your runs and files take {taken / 1e9:,.1f} GB, and your share of the disk is {each.disk / 1e9:,.1f} GB. "
                           "Empty the trash or delete uploads under Runs, then try again.")


def forget_size(room: Path) -> None:
    """Measure a room anew when it is next asked for: something was deleted."""
    _measured.pop(room, None)


def refuse_another_run(room: Path, index: Index) -> None:
    """Raises BusyError where a user has as many runs that wait or train as one may have."""
    unfinished = [entry for entry in index.everywhere() if entry.run.folder.parent == room and not entry.reason
                  and entry.status in ("queued", "starting", "running")]
    if runs.owner_of(room) and len(unfinished) >= each.waiting:
        raise BusyError(f"{len(unfinished)} of your runs wait or train, which is the most that one user may have. "
                        "Wait for one to end, or stop one first.")


def refuse_another_helper(owner: str, at_work: int) -> None:
    """Raises BusyError if a user already has `at_work` token previews, the most that a user may run at once."""
    if owner and at_work >= each.processes:
        raise BusyError(f"{at_work} of your pages wait for tokens, which is the most that one user may have. Cancel one of them.")


def refuse_another_process(folder: Path) -> None:
    """Raises BusyError, or NoSpaceError, where the owner of a job's folder has as many workers, or as much on the disk, as one may have."""
    room = next((parent for parent in folder.absolute().parents[:3] if runs.owner_of(parent)), None)
    if room is None:
        return
    refuse_disk(room)
    alive = sum(1 for pattern in WORKING for place in room.glob(pattern) if (worker := processes.read(place)) is not None and worker.alive)
    if alive >= each.processes:
        raise BusyError(f"{alive} processes of yours are at work, which is the most that one user may have at once. Wait for one to end.")
