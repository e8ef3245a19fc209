"""The columns by whose values rows can be told apart: a source, a category, a language, a split."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

MOST_VALUES = 30
"""A column with more values is an identity, a score or a text, by which nobody divides a set."""
LONGEST = 60


class Facets:
    """Counts the values of some columns while rows pass; a column that turns out to have too many is forgotten."""

    def __init__(self, columns: Sequence[str]):
        self._counts: dict[str, Counter[str]] = {column: Counter() for column in columns if _can_be_named(column) and "=" not in column}

    def see(self, values: Mapping[str, Any]) -> None:
        """One row."""
        for column, counts in list(self._counts.items()):
            value = values.get(column)
            if value is None:
                continue
            text = str(value) if isinstance(value, str | int | bool) else ""
            counts[text] += 1
            if not _can_be_named(text) or len(counts) > MOST_VALUES:
                del self._counts[column]

    def found(self) -> dict[str, dict[str, int]]:
        """Rows by value, the most frequent first, of every column that has at least two values."""
        return {column: dict(counts.most_common()) for column, counts in self._counts.items() if len(counts) > 1}


def _can_be_named(text: str) -> bool:
    """Whether an edit can name the value: edits are divided by semicolons, and white space in them is evened out."""
    return bool(text) and len(text) <= LONGEST and ";" not in text and " ".join(text.split()) == text
