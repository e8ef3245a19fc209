"""Rows whose structure is hidden: structs around the columns, and turns or lists that were written as text into a cell.

What a column holds is decided for the whole of it by a sample: an answer that is JSON because the question asks for JSON
stays the text that it is.
"""

import ast
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from studio.errors import DataError
from studio.preferences.column_names import means
from studio.preferences.tools import are_tools
from studio.preferences.turns import AROUND, content_of, is_parts, is_turn

Row = Mapping[str, Any]

LONGEST = 4 * 1024**2
"""Characters of a text that is tried as structure."""
LONGEST_PRINTED = 256 * 1024
"""The same for what Python prints, which costs a hundred times its length to read."""
DEEPEST = 4
"""Structs in structs whose fields become columns."""
OPENS = re.compile(r"""\s*(?:"\s*(?:\\"|'|[\[{])|[\[{]|array\()""")
UNSEPARATED = re.compile(r"\}(\s+)\{")
"""What NumPy writes between two structs of a list, a line break in it. One in a text is written as a backslash and an n."""
ARRAY = re.compile(r"\A\s*array\((.*?)(?:,\s*dtype=\w+)?\)\s*\Z", re.DOTALL)
MOST = 0.9
TURNS = ("text", "content", "role")


def read_back(text: Any) -> Any:
    """The list or struct that a text writes, as JSON or as Python prints it, also if it was written twice; None for any other."""
    for _ in range(3):
        if not isinstance(text, str) or len(text) > LONGEST or not OPENS.match(text):
            return None
        text = _loaded(text)
        if isinstance(text, list | tuple | dict):
            return text
    return None


def _separated(found: re.Match) -> str:
    return "}, {" if "\n" in found[1] else found[0]


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        if len(text) > LONGEST_PRINTED:
            return None
    try:
        return ast.literal_eval(UNSEPARATED.sub(_separated, ARRAY.sub(r"\1", text)).strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


# --- what values are --------------------------------------------------------------------------------------------------


def kind_of(value: Any) -> str:
    """turns, texts, numbers, exchanges, structs or struct for a value with structure; nothing for any other."""
    if isinstance(value, Mapping):
        if is_turn(value) or (len(value) == 1 and any(kind_of(value.get(name)) == "turns" for name in AROUND)):
            return "turns"
        if value and all(isinstance(items, list) and not any(isinstance(item, Mapping) for item in items) for items in value.values()):
            return "turns" if {"role", "content"} <= value.keys() or {"from", "value"} <= value.keys() else "structs"
        return "struct" if value else ""
    if not isinstance(value, list | tuple) or not value:
        return ""
    if all(map(is_turn, value)):
        return "turns"
    if all(kind_of(item) == "turns" for item in value):
        return "turns"  # several answers, each in turns
    if all(isinstance(item, str) for item in value):
        return "texts"
    if all(isinstance(item, int | float) and not isinstance(item, bool) for item in value):
        return "numbers"
    if all(isinstance(item, list | tuple) and len(item) == 2 for item in value):
        return "exchanges"
    return "structs" if all(isinstance(item, Mapping) for item in value) else ""


def holds_turns(value: Any, depth: int = 0) -> bool:
    """Whether a value is turns, or a struct with turns somewhere in it."""
    if kind_of(value) == "turns" or branches(value):
        return True
    return depth < DEEPEST and isinstance(value, Mapping) and any(holds_turns(inner, depth + 1) for inner in value.values())


def branches(value: Any) -> str:
    """The field of a conversation's last turn that holds several answers, each a struct with a content; nothing for any other value."""
    if not isinstance(value, list | tuple) or len(value) < 2 or not all(map(is_turn, value[:-1])) or not isinstance(value[-1], Mapping):
        return ""
    last = value[-1]
    return next((name for name, inner in last.items() if isinstance(inner, list | tuple) and len(inner) > 1 and all(
        isinstance(one, Mapping) and content_of(one) is not None for one in inner) and content_of(last) is None), "")


def mostly(fits: Iterable[bool]) -> bool:
    """Whether nine of ten do, so that a few odd rows do not hide a format."""
    fits = list(fits)
    return bool(fits) and sum(fits) >= MOST * len(fits)


def _kind_in(values: Sequence[Any]) -> str:
    """The kind that most of the values are."""
    kinds = [kind_of(value) for value in values]
    return next((kind for kind in dict.fromkeys(kinds) if kind and mostly(one == kind for one in kinds)), "")


# --- rows -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """How rows are looked at: which columns are read back from texts, and of which structs the fields are columns.

    `branched` are conversations whose last turn holds several answers, which become a column of their own. A field's name
    is its path with dots.
    """

    written: frozenset[str] = frozenset()
    nested: frozenset[str] = frozenset()
    branched: frozenset[str] = frozenset()

    @property
    def renames(self) -> bool:
        """Whether columns are called otherwise than in the rows."""
        return bool(self.nested or self.branched)

    def of(self, row: Row) -> Row:
        """The row with these columns. Raises DataError for a text in a read-back column that begins as structure and is none."""
        if self == UNCHANGED:
            return row
        found: dict[str, Any] = {}
        for name, value in row.items():
            self._put(found, name, value)
        return found

    def _put(self, found: dict[str, Any], name: str, value: Any) -> None:
        if name in self.written and isinstance(value, str) and value.strip():
            read = read_back(value)
            if read is None and OPENS.match(value):
                raise DataError(f"hold a damaged list in “{name}”, where other rows hold turns or lists written as text")
            value = value if read is None else read
        if name in self.branched and (field := branches(value)):
            found[name], found[f"{name}.{field}"] = value[:-1], value[-1][field]
            return
        if name in self.nested and isinstance(value, list | tuple):
            value = _gathered(value)
        if name in self.nested and isinstance(value, Mapping):
            for field, inner in value.items():
                self._put(found, f"{name}.{field}", inner)
        else:
            found[name] = value

    def in_words(self) -> str:
        """What was read back, in a sentence, or nothing."""
        if not self.written:
            return ""
        named = ", ".join(f"“{name}”" for name in sorted(self.written))
        return f" {named} {'hold' if len(self.written) > 1 else 'holds'} lists or turns that were written as text; they are read back."


UNCHANGED = View()


def _gathered(structs: Sequence[Any]) -> Any:
    """The fields of several structs, each as the list of its values; of one, its fields."""
    if not all(isinstance(one, Mapping) for one in structs):
        return structs
    if len(structs) == 1:
        return structs[0]
    return {name: [one.get(name) for one in structs] for name in dict.fromkeys(name for one in structs for name in one)}


def view_of(sample: Sequence[Row], whole: bool = False, answers: Sequence[str] = ()) -> View:
    """How to look at rows like these.

    `whole` reads back everything that can be, for rows in which nothing is recognised otherwise. `answers` are columns with
    answers that, unlike those they stand beside, are lists of texts: several answers each.
    """
    written, nested, branched = set(), set(), set()
    columns: dict[str, list[Any]] = {}
    for row in sample:
        for name, value in row.items():
            if value is not None and value != "":
                columns.setdefault(name, []).append(value)
    todo = [(name, values, 0) for name, values in columns.items()]
    while todo:
        name, values, depth = todo.pop()
        if mostly(isinstance(value, str) for value in values):
            read = [read_back(value) for value in values]
            kind = _kind_in(read)
            if mostly(map(holds_turns, read)) or (kind and (whole or name in answers)):
                written.add(name)
                values = [value for value in read if value is not None]
        if mostly(bool(branches(value)) for value in values):
            branched.add(name)
        elif depth < DEEPEST and _is_nested(name, values):
            nested.add(name)
            inner: dict[str, list[Any]] = {}
            for value in values:
                gathered = _gathered(value) if isinstance(value, list | tuple) else value
                for field, item in gathered.items() if isinstance(gathered, Mapping) else ():
                    if item is not None:
                        inner.setdefault(f"{name}.{field}", []).append(item)
            todo += [(field, items, depth + 1) for field, items in inner.items()]
    return View(frozenset(written), frozenset(nested), frozenset(branched))


def _is_nested(name: str, values: Sequence[Any]) -> bool:
    """Whether the values are structs around columns: neither turns nor parts nor lists of rated answers."""
    def around(value: Any) -> bool:
        if are_tools(value):
            return False
        if isinstance(value, Mapping):
            return kind_of(value) == "struct" and not is_parts(value) and not {"bytes", "path"} <= value.keys()  # that is an image
        # A list of answers is read as one; who voted how is about the row.
        return not means(name.rsplit(".", 1)[-1], "answer") and isinstance(value, list | tuple) and len(value) > 0 and all(
            isinstance(one, Mapping) and kind_of(one) in ("struct", "structs") and not is_parts(one) for one in value) and _is_record(value)

    return mostly(around(value) for value in values)


def _is_record(structs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a list of structs says something about its row (who voted how) rather than being a list of answers or of ranks."""
    inner = [value for one in structs for value in one.values()]
    return not any("rank" in one for one in structs) and not any(
        len(value.split()) > 3 if isinstance(value, str) else isinstance(value, Mapping) and not value.keys().isdisjoint(TURNS)
        for value in inner)
