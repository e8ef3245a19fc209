"""Launch the worker of a job: a session of its own that outlives the page, its token through a pipe, and nobody left unwatched.

What a page does between deciding on a worker and having handed it its token can be cut off at any point. The worker takes the
lock of its folder before its first event, and one that was handed nothing leaves: so there is one worker, whoever starts how many.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from studio import credentials, output, processes, runs, whole

EXIT = "exit.json"
PROJECT = Path(__file__).resolve().parent.parent


def launch(kind: str, folder: Path, secrets: dict[str, str]) -> None:
    """Launch `python -m studio.engine.<kind> FOLDER` and write down which process that is. The caller keeps others from launching.

    Raises OSError where it cannot be launched or not be written down; then no worker is left.
    """
    owner = runs.owner_of_job(folder)
    secrets = credentials.handed_over(owner, secrets)
    with output.into(folder / "worker.log", secrets.values()) as log:
        process = subprocess.Popen(
            [sys.executable, "-m", f"studio.engine.{kind}", str(folder)],
            cwd=PROJECT, env=credentials.environment(owner), stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT,
            start_new_session=True)
    try:
        processes.write(folder, processes.of(process.pid))
        _hand_over(process, secrets)
    except BaseException:
        _end(process)
        raise
    # Somebody must wait for the child, or it stays a zombie that still looks alive.
    threading.Thread(target=_attend, args=[process, folder], daemon=True).start()


def _hand_over(process: subprocess.Popen, secrets: dict[str, str]) -> None:
    try:
        process.stdin.write(json.dumps(secrets).encode())
        process.stdin.close()
    except BrokenPipeError:
        pass  # it died already; its status says so


def _end(process: subprocess.Popen) -> None:
    """End a worker that nobody would know of, with all that it has started."""
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(OSError):  # its pipe has no reader any more
        process.stdin.close()
    process.wait()


def _attend(process: subprocess.Popen, folder: Path) -> None:
    """Wait for a worker's end and note how it came about, which nobody can tell afterwards."""
    code = process.wait()
    with suppress(OSError):  # the folder may have gone
        (folder / EXIT).write_text(json.dumps({"pid": process.pid, "code": code}), encoding="utf-8")


def exit_code(folder: Path) -> int | None:
    """How the last worker of a folder ended: its code, or the signal's number below zero; None while it lives, or if nobody saw it."""
    worker = processes.read(folder)
    try:
        noted = whole.read_json(folder / EXIT)
        return noted["code"] if worker is not None and noted["pid"] == worker.pid and isinstance(noted["code"], int) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
