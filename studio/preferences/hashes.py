"""Sets and tables of millions of hashes in little memory: open addressing in plain arrays, with no object for a hash.

A million take 17 MB in a set and 25 MB in a table; Python's own need five times that. Numbers are taken to be evenly
spread over 64 bits, as hashes are. What is put in stays in.
"""

from array import array

SMALLEST = 65_536
"""Slots to begin with, so that most sets never grow. It is always a power of two: a number's low bits are its slot."""
EMPTY = 0
"""Marks a free slot. The number 0 itself is kept as 1: two of 2**64 numbers are one here."""


class Hashes:
    """A set of numbers."""

    def __init__(self):
        self._numbers, self._held = array("Q", [EMPTY]) * SMALLEST, 0

    def __contains__(self, number: int) -> bool:
        return self._numbers[_slot(self._numbers, number or 1)] != EMPTY

    def add(self, number: int) -> bool:
        """Puts a number in. Says whether it was there before."""
        slot = _slot(self._numbers, number or 1)
        if self._numbers[slot] != EMPTY:
            return True
        self._numbers[slot] = number or 1
        self._held += 1
        if _is_full(self._numbers, self._held):
            former, self._numbers = self._numbers, array("Q", [EMPTY]) * (2 * len(self._numbers))
            for held in filter(None, former):
                self._numbers[_slot(self._numbers, held)] = held
        return False


class Places:
    """A table of numbers with the place, below 2**32, where each came first."""

    def __init__(self):
        self._numbers, self._places, self._held = array("Q", [EMPTY]) * SMALLEST, array("I", [0]) * SMALLEST, 0

    def get(self, number: int) -> int | None:
        """Where a number came first; None for one that is new."""
        slot = _slot(self._numbers, number or 1)
        return None if self._numbers[slot] == EMPTY else self._places[slot]

    def put(self, number: int, place: int) -> None:
        """Puts a number in, unless it came before."""
        slot = _slot(self._numbers, number or 1)
        if self._numbers[slot] != EMPTY:
            return
        self._numbers[slot], self._places[slot] = number or 1, place
        self._held += 1
        if _is_full(self._numbers, self._held):
            former = zip(self._numbers, self._places, strict=True)
            slots = 2 * len(self._numbers)
            self._numbers, self._places = array("Q", [EMPTY]) * slots, array("I", [0]) * slots
            for held, where in former:
                if held != EMPTY:
                    slot = _slot(self._numbers, held)
                    self._numbers[slot], self._places[slot] = held, where


def _slot(numbers: array, number: int) -> int:
    """Where a number stands, or would stand: the first slot from its own on that is its or free."""
    last = len(numbers) - 1
    slot = number & last
    while (held := numbers[slot]) != EMPTY and held != number:
        slot = (slot + 1) & last
    return slot


def _is_full(numbers: array, held: int) -> bool:
    """Whether so many slots are taken that looking for a free one would become slow."""
    return 3 * held > 2 * len(numbers)
