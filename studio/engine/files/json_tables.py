"""JSON that holds a table otherwise than as a list of rows: by columns, by index, or split into names and cells."""

from collections.abc import Mapping, Sequence
from typing import Any

Table = list[dict[str, Any]]


def rows_of(value: Any, depth: int = 0) -> Table | None:
    """The rows of a table in a JSON object, or in the one object in it that holds one; None if there is none.

    pandas writes four forms: lists or index objects by column, rows by index, and names beside lists of cells.
    """
    if not isinstance(value, Mapping) or not value:
        return None
    found = _split(value) or _by_column(value) or _by_index(value)
    if found or depth:
        return found
    inner = [table for one in value.values() if (table := rows_of(one, depth + 1))]
    return inner[0] if len(inner) == 1 else None


def unequal(value: Any) -> str:
    """The lengths of columns that are not equally long, in words; empty for anything else."""
    columns = value if _are_columns(value) else next((one for one in value.values() if _are_columns(one)), {})
    lengths = {name: len(items) for name, items in columns.items()}
    return ", ".join(f"“{name[:60]}” {length:,}" for name, length in list(lengths.items())[:12]) if len(set(lengths.values())) > 1 else ""


def _are_columns(value: Any) -> bool:
    return isinstance(value, Mapping) and len(value) > 1 and all(isinstance(items, list) and items for items in value.values())


def _by_column(value: Mapping[str, Any]) -> Table | None:
    if _are_columns(value) and len(set(map(len, value.values()))) == 1:
        return [dict(zip(value, cells, strict=True)) for cells in zip(*value.values(), strict=True)]
    if len(value) > 1 and all(isinstance(cells, Mapping) and cells for cells in value.values()):
        first = next(iter(value.values()))
        if _are_indices(first) and all(cells.keys() == first.keys() for cells in value.values()):
            return [{name: cells[at] for name, cells in value.items()} for at in first]
    return None


def _by_index(value: Mapping[str, Any]) -> Table | None:
    if _are_indices(value) and all(isinstance(row, Mapping) and row for row in value.values()):
        return [dict(row) for row in value.values()]
    return None


def _are_indices(names: Sequence[str] | Mapping[str, Any]) -> bool:
    return bool(names) and all(name.isdigit() for name in names)


def _split(value: Mapping[str, Any]) -> Table | None:
    names, cells = value.get("columns"), value.get("data")
    fits = (isinstance(names, list) and isinstance(cells, list) and cells and all(isinstance(name, str) for name in names)
            and all(isinstance(row, list) and len(row) == len(names) for row in cells))
    return [dict(zip(names, row, strict=True)) for row in cells] if fits else None
