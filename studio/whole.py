"""Small files that are there whole or not at all: written aside under a hidden name, then renamed."""

import os
import secrets
from contextlib import suppress
from pathlib import Path


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
