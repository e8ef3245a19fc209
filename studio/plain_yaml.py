"""YAML from files that anybody may have made, as plain values: a bounded size, no tags, nothing said twice by reference."""

import os
import stat
from pathlib import Path
from typing import Any

import yaml

from studio.errors import SettingsError

LARGEST = 4 * 2**20
"""Bytes. The longest real ones hold the text of some hundred rewritten pairs."""


def of_file(path: Path) -> str:
    """The text of a file. Raises SettingsError for what is no file of text, or one that is far too large."""
    try:
        with open(path, "rb", opener=_itself) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError("no file")
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise _refused(f"{path.name} cannot be read as a file.") from error
    if len(content) > LARGEST:
        raise _refused(f"{path.name} is larger than {LARGEST // 2**20} MB.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _refused(f"{path.name} is not text.") from None


def _itself(path: str, flags: int) -> int:
    """Open neither through a link, nor waiting for the other end of a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def mapping(text: str) -> dict[str, Any]:
    """What a YAML text maps; nothing for an empty one. Raises SettingsError for any other text."""
    try:
        if "*" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise _refused("This file says things by reference, which can make a short text endless.")
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise _refused(f"This is not YAML: {f'line {mark.line + 1}' if mark else 'it'} cannot be read.") from None
    except (ValueError, RecursionError):  # a date that is none, a number of five thousand digits, a thousand brackets
        raise _refused("This file holds a value that cannot be read.") from None
    if not isinstance(found or {}, dict) or not all(isinstance(key, str) for key in found or {}):
        raise _refused("This file holds no settings.")
    return found or {}


def _refused(what: str) -> SettingsError:
    return SettingsError({"file": f"{what} Choose a settings file of the studio."})
