"""One at a time: whatever computes on a studio's folder holds its lock while it does, and the system lets go of it with the process."""

import fcntl
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from studio import runs
from studio.errors import BusyError

FILE = ".computing"
POLL_SECONDS = 0.5
WORDS = {"train": "a training", "merge": "a merge", "gguf": "the writing of a GGUF file", "two_steps": "a trial of two steps",
         "chat": "a chat"}


def take(folder: Path, kind: str, waits: Callable[[str], bool] | None = None) -> IO | None:
    """The open lock of the studio that a job's folder belongs to; the caller keeps it for as long as it computes.

    While somebody else holds it, `waits` is told who and says whether to go on waiting; without it BusyError is raised.
    None on a file system that knows no locks: taking turns is then up to the queue alone.
    """
    lock = open(runs.home_of(_room(folder)) / FILE, "a+", encoding="utf-8")  # noqa: SIM115 (stays open on purpose)
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(lock)
            if waits is None:
                lock.close()
                raise BusyError(f"{holder[0].upper()}{holder[1:]} is at work, and one thing computes at a time. "
                                "Wait until it has ended, or stop it.") from None
            if not waits(holder):
                lock.close()
                return None
            time.sleep(POLL_SECONDS)
        except OSError:
            lock.close()
            return None
        else:
            lock.truncate(0)
            lock.write(json.dumps({"kind": kind, "name": _run(folder).name, "pid": os.getpid()}))
            lock.flush()
            return lock


def _holder(lock: IO) -> str:
    """Who computes, in words. A user is not told the name of another's run."""
    lock.seek(0)
    try:
        return WORDS[json.loads(lock.read())["kind"]]
    except (ValueError, KeyError, TypeError):
        return "something else"


def _run(folder: Path) -> Path:
    """The run's folder of a job's; its own where the job has none."""
    return folder.parent if (folder.parent / "settings.yaml").is_file() else folder


def _room(folder: Path) -> Path:
    return _run(folder).parent
