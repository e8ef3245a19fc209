"""JSON lines, a JSON list or an object around one -> rows, whatever the file is called; one row in memory at a time."""

import io
import json
import re
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

from studio.engine.files.encoding import opened
from studio.engine.files.json_tables import rows_of, unequal
from studio.engine.files.lines import CUT_OFF, MAX_CELL, MAX_ROW, TOO_LONG, How, Line, checked, fault
from studio.errors import DataError

LOOK = 20
"""Lines by which a file is recognised: if none of them is JSON, the file is none."""
CHUNK = 1024**2
NOT_JSON = "are not JSON"
NESTED = "are nested too deeply"
SUSPECT = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
"""Escapes that may hide a NUL or half a character; other lines need not be walked through."""
SPACE = re.compile(r"[ \t\r\n]*")
DECODER = json.JSONDecoder()


def rows(path: Path, how: How) -> Iterator[Line]:
    """The rows of a file. Raises DataError for one that is no JSON or holds no list of rows."""
    with opened(path, how.encoding) as file:
        head = list(islice(_bounded(file, CHUNK // 4), LOOK))
    if not head:
        return iter(())
    begin = head[0][1].lstrip()
    if begin[:1] not in (b"{", b"[") or _is_lines(head):
        return _vouched(_lines(path, how), begin, path.name)
    if begin.startswith(b"["):
        return _list(path, how)
    return _within(path, how)


def _bounded(file: BinaryIO, limit: int) -> Iterator[tuple[int, bytes, bool]]:
    """Each line that is not blank: its number, as much of it as the limit allows, and whether that is all of it."""
    number = 0
    while raw := file.readline(limit):
        number += 1
        piece, is_all = raw, len(raw) < limit or raw.endswith(b"\n")
        while not is_all and piece and not piece.endswith(b"\n"):
            piece = file.readline(CHUNK)
        if not raw.isspace():
            yield number, raw, is_all


def _is_lines(head: list[tuple[int, bytes, bool]]) -> bool:
    """Whether each line is a value of its own. Of a document over several lines, few of them are."""
    whole = [_parses(raw) for _, raw, is_all in head if is_all]
    return len(head) > 1 and (whole[:1] == [True] or 2 * sum(whole) >= len(whole))


def _parses(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.decode()), (dict, list))
    except (ValueError, RecursionError):
        return False


# --- lines ------------------------------------------------------------------------------------------------------------


def _vouched(lines: Iterator[Line], begin: bytes, name: str) -> Iterator[Line]:
    """The lines, if at least one of the first is JSON."""
    first = list(islice(lines, LOOK))
    if all(line.reason in (NOT_JSON, CUT_OFF) for line in first):
        told = begin[:200].decode(errors="replace").strip()[:40]
        raise DataError(f"{name}, line {first[0].number}, is not JSON but begins with “{told}”, and so on. "
                        "Choose a file with a JSON object on each line.")
    yield from chain(first, lines)


def _lines(path: Path, how: How) -> Iterator[Line]:
    with opened(path, how.encoding) as file:
        for number, raw, is_all in _bounded(file, MAX_ROW):
            yield _line(number, raw) if is_all else Line(number, None, TOO_LONG)


def _line(number: int, raw: bytes) -> Line:
    try:
        value = json.loads(raw.decode())
    except RecursionError:
        return Line(number, None, NESTED)
    except ValueError:
        reason = "hold a NUL character" if b"\0" in raw else NOT_JSON if raw.endswith(b"\n") else CUT_OFF
        return Line(number, None, reason)
    if isinstance(value, dict) and len(raw) < MAX_CELL and not SUSPECT.search(raw):
        return Line(number, value)
    return _row(number, value)


def _row(number: int, value: Any) -> Line:
    if isinstance(value, dict):
        return checked(number, value)
    kind = "list" if isinstance(value, list) else "text" if isinstance(value, str) else "single value"
    return Line(number, None, fault(value) or f"are a {kind} and not an object with columns")


# --- documents --------------------------------------------------------------------------------------------------------


class _Cut(Exception):
    """The file ends before the document does."""


class _Document:
    """A JSON text that is read value by value: no more of it is in memory than one value and a chunk."""

    def __init__(self, path: Path, how: How):
        # All but a character that the file's end cuts in two has been checked, and what it belongs to is cut as well.
        self._file = io.TextIOWrapper(opened(path, how.encoding), "utf-8", errors="replace", newline="")
        self._name, self._text, self._at, self._line, self._ended = path.name, "", 0, 1, False

    def __enter__(self) -> "_Document":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def peek(self) -> str:
        """The next character that is not blank, or nothing at the end."""
        while True:
            self._at = SPACE.match(self._text, self._at).end()
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""
            self._read()

    def value(self) -> Any:
        """The value that begins here."""
        self.peek()
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._at)
                if end < len(self._text) or self._ended:  # a number at the end of the chunk may go on
                    self._at = end
                    return value
            except json.JSONDecodeError as error:
                # A text that merely stops fails at its end.
                if error.pos < len(self._text) - 6 and not error.msg.startswith("Unterminated"):
                    raise self._wrong(f"({error.msg})", error.pos) from error
                if self._ended:
                    raise _Cut from error
            except RecursionError as error:
                raise self._wrong("(its values are nested too deeply)", self._at) from error
            if len(self._text) - self._at >= MAX_ROW:
                raise self._wrong(f"that can be read: one value is longer than {MAX_ROW // 1024**2} MB", self._at)
            self._read()

    def items(self) -> Iterator[Any]:
        """The values of the list that begins here."""
        self._pass("[")
        while self.peek() != "]":
            yield self.value()
            if self.peek() != "]":
                self._pass(",")
        self._pass("]")

    def members(self) -> Iterator[str]:
        """The names in the object that begins here. Whoever asks for the next has read or passed the value of this."""
        self._pass("{")
        while self.peek() != "}":
            name = self.value()
            self._pass(":")
            yield name
            if self.peek() != "}":
                self._pass(",")
        self._pass("}")

    def skip(self) -> None:
        """Pass the value that begins here, however long a list it is."""
        if self.peek() != "[":
            self.value()
        else:
            for _ in self.items():
                pass

    def end(self) -> None:
        """Raises DataError if more comes after the document."""
        if self.peek():
            raise self._wrong("(more comes after the end)", self._at)

    def _pass(self, mark: str) -> None:
        found = self.peek()
        if not found:
            raise _Cut
        if found != mark:
            raise self._wrong(f"(“{mark}” is missing)", self._at)
        self._at += 1

    def _read(self) -> None:
        # As much again as is held, so that a long value is not tried at every chunk.
        fresh = self._file.read(max(CHUNK, len(self._text) - self._at))
        self._line += self._text.count("\n", 0, self._at)
        self._text, self._at, self._ended = self._text[self._at :] + fresh, 0, not fresh

    def _wrong(self, what: str, place: int) -> DataError:
        line = self._line + self._text.count("\n", 0, place)
        return DataError(f"{self._name}, line {line}, is not JSON {what}. Repair it there, or export the file again.")


def _list(path: Path, how: How, name: str = "") -> Iterator[Line]:
    """The rows of the list that the file is, or of the one that this name has in it."""
    number = 0
    with _Document(path, how) as document:
        try:
            for found in document.members() if name else ():
                if found == name:
                    break
                document.skip()
            for number, value in enumerate(document.items(), 1):
                yield _row(number, value)
            if not name:
                document.end()
        except _Cut:
            yield Line(number + 1, None, CUT_OFF)


def _within(path: Path, how: How) -> Iterator[Line]:
    """The rows of the one list of objects in an object, or of a table in another form, or the object itself if it is a row."""
    lists, is_row, is_table = [], False, False
    with _Document(path, how) as document:
        try:
            for name in document.members():
                if document.peek() != "[":
                    value = document.value()
                    is_row |= isinstance(value, str)
                    is_table |= isinstance(value, dict)
                    continue
                for place, item in enumerate(document.items()):
                    is_table |= place == 0 and not isinstance(item, dict)
                    if place == 0 and isinstance(item, dict):
                        is_turn = {"role", "content"} <= item.keys() or {"from", "value"} <= item.keys()
                        is_row |= is_turn
                        lists += [] if is_turn else [name]
            document.end()
        except _Cut:
            is_row = False
    if len(lists) > 1:
        named = ", ".join(f"“{name[:60]}”" for name in lists[:12])
        raise DataError(f"{path.name} holds several lists of rows: {named}. Save the one that is wanted as a file of its own.")
    if lists:
        return _list(path, how, lists[0])
    if is_table and not (is_row and not lists):
        with _Document(path, how) as document:
            value = document.value()
        if found := rows_of(value):
            return (_row(number, row) for number, row in enumerate(found, 1))
        if lengths := unequal(value):
            raise DataError(f"{path.name} holds columns of different lengths: {lengths}. Export it again, so that every row has all "
                            "of them.")
    if not is_row:
        raise DataError(f"{path.name} holds one object and no list of rows in it. Save it with one object for each row, "
                        "as JSON lines or as a list.")
    with _Document(path, how) as document:
        return iter([_row(1, document.value())])
