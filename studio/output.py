"""What workers print, on its way into their log: secrets blotted out, and no more of it than a disk can bear.

A small process of its own reads the worker's output, `python -m studio.output LOG`: it outlives the page, reads on when the
worker dies in the middle of a word, and ends with it. Its first line holds the secrets, as JSON.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import IO, BinaryIO

from studio import credentials
from studio.credentials import NOBODY
from studio.redaction import redact

PROJECT = Path(__file__).resolve().parent.parent
LONGEST_LINE = 64 * 1024
LARGEST, KEPT = 8 * 1024**2, 1024**2
"""Bytes at which a log is cut, and what is left of its end."""
CUT = b"[what came before was cut: the log had grown too long]\n"


def into(log: Path, secrets: Iterable[str] = ()) -> IO[bytes]:
    """A pipe whose other end writes into a log; to be handed to a worker as its output and closed then."""
    process = subprocess.Popen([sys.executable, "-m", "studio.output", str(log)], cwd=PROJECT,
                               env=credentials.environment(NOBODY), stdin=subprocess.PIPE,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    process.stdin.write(json.dumps([secret for secret in secrets if secret]).encode() + b"\n")
    process.stdin.flush()
    return process.stdin


def copy(source: BinaryIO, log: Path, known: Iterable[str]) -> None:
    """Copy line by line until the end. A disk that takes nothing loses output, and never stops whoever prints."""
    known = list(known)
    with open(log, "ab", buffering=0) as file:
        while line := source.readline(LONGEST_LINE):
            try:
                file.write(redact(line.decode(errors="replace"), known).encode())
                if file.tell() > LARGEST:
                    _cut(file, log)
            except OSError:
                continue


def _cut(file: BinaryIO, log: Path) -> None:
    with open(log, "rb") as written:
        written.seek(-KEPT, os.SEEK_END)
        end = written.read().partition(b"\n")[2]
    file.truncate(0)
    file.write(CUT + end)


if __name__ == "__main__":
    copy(sys.stdin.buffer, Path(sys.argv[1]), json.loads(sys.stdin.buffer.readline() or "[]"))
