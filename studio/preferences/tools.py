"""Descriptions of tools that a model may call, as chat templates take them: a list of functions with name and parameters."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from studio.errors import DataError
from studio.preferences.turns import without_gaps

LONGEST = 4 * 1024**2
"""Characters of a text that is read as such a list."""
SCHEMA = ("parameters", "description", "input_schema", "arguments")


def are_tools(value: Any) -> bool:
    """Whether a value, or what a text writes as JSON, is a list of tools' descriptions."""
    found = _read(value)
    return bool(found) and isinstance(found, list | tuple) and all(_described(_read(one)) is not None for one in found)


def tools_of(value: Any) -> list[dict[str, Any]]:
    """The tools in a row's value, each as {"type": "function", "function": {...}}; none for an empty one. Raises DataError for others."""
    found = _read(value)
    if found in (None, "", [], {}) or value in ("", "[]", "null"):
        return []
    if not isinstance(found, list | tuple) or not are_tools(found):
        raise DataError("hold tools that are not a list of functions with names")
    described = [_described(_read(one)) for one in found]
    return [without_gaps(dict(one)) for one in described]


def column(free: Sequence[str], sample: Sequence[Mapping[str, Any]]) -> str:
    """The column that holds tools, by its values; nothing if there is none."""
    for name in free:
        values = [row[name] for row in sample if row.get(name) not in (None, "", [], "[]", {})]
        if values and all(map(are_tools, values)):
            return name
    return ""


def _read(value: Any) -> Any:
    if isinstance(value, str) and len(value) <= LONGEST and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _described(tool: Any) -> Mapping[str, Any] | None:
    """A tool's description with its type; None for what is none."""
    if not isinstance(tool, Mapping):
        return None
    inner = tool.get("function")
    if isinstance(inner, Mapping):
        return {"type": "function", **tool} if isinstance(inner.get("name"), str) else None
    if isinstance(tool.get("name"), str) and "content" not in tool and any(name in tool for name in SCHEMA):
        return {"type": "function", "function": {name: item for name, item in tool.items() if name != "type"}}
    return None
