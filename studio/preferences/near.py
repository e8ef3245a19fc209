"""Almost the same text as an earlier one, found without keeping the texts (MinHash; Broder 1997).

Each text becomes its runs of four words, these become numbers, and of these the smallest under sixteen different
orders are kept: two texts agree in as large a share of the sixteen as they share of their runs.
"""

from functools import reduce
from zlib import crc32

import numpy as np

from studio.preferences.checks import Counting
from studio.preferences.findings import share
from studio.preferences.hashes import Hashes, Places
from studio.preferences.told import Told, hash_of

RUN, ORDERS, BANDS = 4, 16, 4
ALIKE = 13
"""Of the sixteen; about 0.8 of the runs in common."""
SHORTEST = 12
"""Words; short texts share their runs by chance."""
BLOCK = 65_536
"""Runs that are put in their sixteen orders at a time, so that a very long text takes 8 MB and not all there is."""

_RNG = np.random.default_rng(0)
FACTORS = _RNG.integers(1, 2**63, ORDERS, dtype=np.uint64)[:, None] | np.uint64(1)
OFFSETS = _RNG.integers(0, 2**63, ORDERS, dtype=np.uint64)[:, None]
STRETCH = np.uint64(0x9E3779B97F4A7C15)


class WordNumbers(dict[str, int]):
    """A number for each word, the same in every process. The first many are remembered, which is three times as fast."""

    MANY, LONG = 50_000, 30

    def __missing__(self, word: str) -> int:
        number = crc32(word.encode(errors="surrogatepass"))
        if len(self) < self.MANY and len(word) < self.LONG:
            self[word] = number
        return number


def sketch(words: list[str], numbers: WordNumbers) -> np.ndarray:
    """The sixteen numbers of a text of at least RUN words, uint32 (16,)."""
    found = np.fromiter(map(numbers.__getitem__, words), np.uint64, len(words))
    count = len(words) - RUN + 1
    runs = found[:count]
    for place in range(1, RUN):
        runs = (runs * STRETCH) ^ found[place : count + place]
    smallest = reduce(np.minimum, ((runs[at : at + BLOCK] * FACTORS + OFFSETS).min(1) for at in range(0, count, BLOCK)))
    return (smallest >> np.uint64(32)).astype(np.uint32)


class NearDuplicates(Counting):
    """A question with its better answer that are almost an earlier pair's, word for word."""

    name, weight, what = "near-duplicates", "warn", "near repeats"

    def __init__(self):
        super().__init__()
        self._sketches, self._places = bytearray(), [Places() for _ in range(BANDS)]
        self._exact, self._numbers = Hashes(), WordNumbers()

    def concerns(self, told: Told) -> bool:
        words = told.question.words + told.better.words
        if len(words) < SHORTEST or self._exact.add(hash_of(told.question, told.better)):
            return False  # the exact ones are the duplicates' or have another worse answer
        mine = sketch(words, self._numbers)
        bands = _bands(mine)
        known = {place for places, band in zip(self._places, bands, strict=True) if (place := places.get(band)) is not None}
        if any(np.count_nonzero(self._sketch(place) == mine) >= ALIKE for place in known):
            return True
        for places, band in zip(self._places, bands, strict=True):
            places.put(band, len(self._sketches) // mine.nbytes)
        self._sketches += mine.tobytes()
        return False

    def _sketch(self, place: int) -> np.ndarray:
        return np.frombuffer(self._sketches, np.uint32, ORDERS, place * ORDERS * 4)

    def words(self, total: int) -> str:
        return f"{share(self.count, total)} are almost an earlier one, question and better answer alike. They weigh more than the others."


def _bands(mine: np.ndarray) -> list[int]:
    """A number for each quarter of a sketch. Texts as alike as are looked for agree in one of them, or in more."""
    first, second = mine.view(np.uint64).reshape(BANDS, -1).T
    return (((first * STRETCH) ^ second) * STRETCH).tolist()
