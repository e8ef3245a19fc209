"""Parses Python files for a constant in them, without importing modules that take seconds to load."""

import ast
import threading
from functools import cache
from pathlib import Path

_ONE_AT_A_TIME = threading.Lock()
"""CPython 3.11 shares the recursion depth of ast.parse between threads and may raise SystemError when two parse at once
(python/cpython issue 106905)."""


def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file, cached. Raises OSError if it cannot be read, SyntaxError if it is not Python."""
    with _ONE_AT_A_TIME:
        return _parsed(path)


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))
