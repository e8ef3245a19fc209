"""Pairs on disk, each found by its place, so that a million of them need hardly any memory."""

import json
import math
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAIRS, INDEX = "pairs.jsonl", "pairs.index"
SEARCHED_BYTES = 500 * 1024**2
"""How far into the pairs a search looks."""


class Shelf:
    """The pairs in a folder, each read when it is asked for. Rows have "number", "prompt", "chosen", "rejected"."""

    def __init__(self, folder: Path):
        self.folder = folder
        index = array("Q")
        if (folder / INDEX).exists():
            index.frombytes((folder / INDEX).read_bytes())
        self.numbers, self._starts = index[0::2], index[1::2]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: int) -> dict[str, Any]:
        with open(self.folder / PAIRS, "rb") as file:
            file.seek(self._starts[place])
            return json.loads(file.readline())

    def place_of(self, number: int) -> int | None:
        """Where the pair of that row of the source stands."""
        try:
            return self.numbers.index(number)
        except ValueError:
            return None

    def search(self, text: str, after: int = -1) -> int | None:
        """The next place after `after` whose texts hold `text`, letter case aside; from the start again at the end."""
        wanted = json.dumps(text, ensure_ascii=False)[1:-1].lower()
        places = [place for place, line in self._lines() if wanted in line.decode().lower()]
        return next((place for place in places if place > after), places[0] if places else None)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        with open(self.folder / PAIRS, "rb") as file:
            for place, line in enumerate(file):
                if file.tell() > SEARCHED_BYTES:
                    return
                yield place, line


class Shelving:
    """Writes a shelf while pairs pass; `shelved` counts them. What would go beyond `limit` bytes is not kept."""

    def __init__(self, folder: Path, limit: float = math.inf):
        self.limit, self.shelved, self._at = limit, 0, 0
        self._pairs, self._index = open(folder / PAIRS, "wb"), open(folder / INDEX, "wb")  # noqa: SIM115 - `close` closes them

    def add(self, number: int, row: dict[str, Any]) -> None:
        line = json.dumps({"number": number, **row}, ensure_ascii=False).encode() + b"\n"
        if self._at + len(line) <= self.limit:
            self._pairs.write(line)
            self._index.write(array("Q", [number, self._at]).tobytes())
            self._at, self.shelved = self._at + len(line), self.shelved + 1

    def close(self) -> None:
        self._pairs.close()
        self._index.close()
