"""YAML from files that anybody may have made, as plain values: bounded in size, depth and count, no tags, nothing by reference."""

from pathlib import Path
from typing import Any

import yaml

from studio import whole
from studio.errors import SettingsError

LARGEST = 4 * 2**20
"""Bytes. The longest real ones hold the text of some hundred rewritten pairs."""
DEEPEST, MOST = 32, 5000
"""Lists and mappings within each other; values, keys and brackets in all. A settings file has about a hundred, two levels deep."""
LONGEST_NUMBER = 64
"""Characters. Python counts with longer ones, slowly, and then cannot print them."""

_SAFE = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's reader where PyYAML was built with it: thirty times as fast, and it keeps no depth on the stack of C."""


class _Loader(_SAFE):
    """Safe YAML whose numbers are bounded."""

    def construct_scalar(self, node: yaml.Node) -> str:
        if isinstance(node, yaml.ScalarNode) and node.tag in _NUMBERS and len(node.value) > LONGEST_NUMBER:
            raise ValueError("a number that is too long")
        return super().construct_scalar(node)


_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def of_file(path: Path) -> str:
    """The text of a file. Raises SettingsError for what is no file of text, or one that is far too large."""
    try:
        content = whole.read(path, LARGEST)
    except OSError as error:
        is_large = path.is_file() and not path.is_symlink() and path.stat().st_size > LARGEST
        raise _refused(f"{path.name} is larger than {LARGEST // 2**20} MB." if is_large else
                       f"{path.name} cannot be read as a file.") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _refused(f"{path.name} is not text.") from None


def mapping(text: str) -> dict[str, Any]:
    """What a YAML text maps; nothing for an empty one. Raises SettingsError for any other text."""
    try:
        _refuse_what_is_no_settings_file(text)
        found = _loaded(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise _refused(f"This is not YAML: {f'line {mark.line + 1}' if mark else 'it'} cannot be read.") from None
    except (ValueError, RecursionError):  # a date that is none, a number of five thousand digits, a thousand brackets
        raise _refused("This file holds a value that cannot be read.") from None
    if not isinstance(found or {}, dict) or not all(isinstance(key, str) for key in found or {}):
        raise _refused("This file holds no settings.")
    return found or {}


def _loaded(text: str) -> Any:
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _refuse_what_is_no_settings_file(text: str) -> None:
    """Look at the text's structure as it streams, so that what is too much is refused before it is built."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, _SAFE)):
        if isinstance(event, yaml.AliasEvent):
            raise _refused("This file says things by reference, which can make a short text endless.")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST or count > MOST:
            raise ValueError("too deep or too long")


def _refused(what: str) -> SettingsError:
    return SettingsError({"file": f"{what} Choose a settings file of the studio."})
