"""Small files: written whole or not at all, and read as what they should be or not at all."""

import json
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

MOST = 4 * 2**20
"""Bytes of a small file."""


def write(path: Path, text: str, mode: int = 0o666) -> None:
    """Put `text` in the place of what a file held. Raises OSError where that cannot be, and then nothing has changed.

    Of `mode` what the umask leaves is given to a new file.
    """
    write_bytes(path, text.encode(), mode)


def write_bytes(path: Path, content: bytes, mode: int = 0o666) -> None:
    """The same for bytes."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
        os.replace(draft, path)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise


def read(path: Path, most: int = MOST) -> bytes:
    """What a regular file of at most `most` bytes holds. Raises OSError for anything else in its place: a link, a folder, a
    device, a pipe without a writer, a larger file.
    """
    with open(path, "rb", opener=at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(f"{path.name} is not a regular file")
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(f"{path.name} is larger than {most} bytes")
    return content


def read_utf8(path: Path, most: int = MOST) -> str:
    """The same as text. Raises ValueError as well, for what is not UTF-8."""
    return read(path, most).decode("utf-8")


def read_json(path: Path, most: int = MOST) -> Any:
    """The value that a small file of JSON holds. Raises OSError or ValueError, the latter also for one too deep to be read."""
    try:
        return json.loads(read(path, most))
    except RecursionError as error:
        raise ValueError(f"{path.name} is nested too deeply") from error


def at_once(path: str, flags: int) -> int:
    """Open neither through a link, nor waiting for the other end of a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
