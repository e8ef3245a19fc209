"""Python files that are read and not run, for a table or a text in them: to import what holds them would take seconds."""

import ast
import threading
from functools import cache
from pathlib import Path

_ONE_AT_A_TIME = threading.Lock()
"""CPython 3.11 counts the depth of the trees of all threads in one place, and raises SystemError where two are made at once
(python/cpython issue 106905)."""


def parsed(path: Path) -> ast.Module:
    """The file as a tree, made once. Raises OSError where it cannot be read, SyntaxError where it is no Python."""
    with _ONE_AT_A_TIME:
        return _parsed(path)


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))
