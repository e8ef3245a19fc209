"""Files of JSON lines to which many append at once, and from which a line can be taken out again."""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from studio import whole


def append(path: Path, record: dict[str, Any]) -> None:
    """Add one line. Raises OSError where it cannot be written."""
    try:
        line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half of a surrogate pair, which a browser can send
        line = json.dumps(record, ensure_ascii=True).encode() + b"\n"
    with _alone(path) as file:
        torn = file.seek(0, os.SEEK_END) > 0 and file.seek(-1, os.SEEK_END) and file.read(1) != b"\n"
        file.write((b"\n" if torn else b"") + line)


def take_out(path: Path, goes: Callable[[dict[str, Any]], bool]) -> int:
    """Remove the lines whose record `goes`. Returns how many; all others stay to the byte. Raises OSError where it cannot be written."""
    if not path.is_file():
        return 0
    with _alone(path) as file:
        lines = file.read().splitlines(keepends=True)
        stays = [line for line in lines if (record := _record(line)) is None or not goes(record)]
        if len(stays) < len(lines):
            whole.write_bytes(path, b"".join(stays))
    return len(lines) - len(stays)


def records(path: Path) -> Iterator[dict[str, Any]]:
    """The records, the oldest first; a line that holds none is passed over, and of a file that is not there nothing comes."""
    with suppress(OSError), open(path, "rb", opener=whole.at_once) as file:
        yield from (record for line in file if (record := _record(line)) is not None)


def identity(record: dict[str, Any]) -> str:
    """By what a record is known again: the id that it was given, else a hash of all that it says."""
    given = record.get("id")
    return given if isinstance(given, str) and given else hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


def _record(line: bytes) -> dict[str, Any] | None:
    with suppress(ValueError, RecursionError):
        found = json.loads(line)
        return found if isinstance(found, dict) else None
    return None


@contextmanager
def _alone(path: Path) -> Iterator[BinaryIO]:
    """The file, at its beginning, with nobody else at it. Who waited may hold one that was replaced meanwhile: then again."""
    while True:
        with open(path, "ab+") as file:
            with suppress(OSError):  # on a file system without locks as well as can be
                fcntl.flock(file, fcntl.LOCK_EX)
            with suppress(OSError):
                if os.fstat(file.fileno()).st_ino != path.stat().st_ino:
                    continue
            file.seek(0)
            yield file
            return
