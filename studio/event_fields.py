"""Whether what a log holds is of the kinds that its events declare: what a page does with an event must not depend on who wrote it."""

import math
from collections.abc import Callable, Iterable
from dataclasses import fields
from functools import lru_cache
from typing import Any, get_origin


def known(kind: type, record: dict[str, Any]) -> dict[str, Any]:
    """Of a record the fields that an event of that kind has; a newer version may have written others."""
    return {name: value for name, value in record.items() if name in _checks(kind)}


def fit(kind: type, values: dict[str, Any]) -> bool:
    """Whether every value is of the kind that its field declares."""
    checks = _checks(kind)
    return all(checks[name](value) for name, value in values.items())


@lru_cache
def _checks(kind: type) -> dict[str, Callable[[Any], bool]]:
    return {field.name: _check(field.type) for field in fields(kind)}


def _check(kind: Any) -> Callable[[Any], bool]:
    if get_origin(kind) is dict:
        inner = _is_text if kind == dict[str, str] else _is_number_or_gap
        return lambda value: isinstance(value, dict) and _all(inner, value.values())
    plain = {int: _is_count, float: _is_number, str: _is_text}
    return plain.get(kind, lambda value: isinstance(value, list) and _all(_is_number_or_gap, value))


def _is_number(value: object) -> bool:
    """Whether a value can be counted with: finite, and no integer of a thousand digits."""
    return type(value) in (int, float) and abs(value) < 2**63 and math.isfinite(value)


def _is_count(value: object) -> bool:
    return type(value) is int and _is_number(value)


def _is_number_or_gap(value: object) -> bool:
    return value is None or _is_number(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _all(check: Callable[[object], bool], values: Iterable[object]) -> bool:
    return all(map(check, values))


def finite(value: Any) -> Any:
    """A value as JSON can hold it: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
