"""Almost the same text as an earlier one, found without keeping the texts (MinHash; Broder 1997).

Each text becomes its runs of four words, these become numbers, and of these the smallest under sixteen different
orders are kept: two texts agree in as large a share of the sixteen as they share of their runs.
"""

from zlib import crc32

import numpy as np

from studio.preferences.checks import Counting, plain
from studio.preferences.findings import Seen, said, share

RUN, ORDERS, BANDS = 4, 16, 4
ALIKE = 13
"""Of the sixteen; about 0.8 of the runs in common."""
SHORTEST = 12
"""Words; short texts share their runs by chance."""

_RNG = np.random.default_rng(0)
FACTORS = _RNG.integers(1, 2**63, ORDERS, dtype=np.uint64) | np.uint64(1)
OFFSETS = _RNG.integers(0, 2**63, ORDERS, dtype=np.uint64)
STRETCH = np.uint64(0x9E3779B97F4A7C15)


def sketch(words: list[str]) -> np.ndarray:
    """The sixteen numbers of a text of at least RUN words, uint32 (16,)."""
    numbers = np.fromiter((crc32(word.encode(errors="surrogatepass")) for word in words), np.uint64, len(words))
    runs = numbers[: len(words) - RUN + 1].copy()
    for place in range(1, RUN):
        runs = (runs * STRETCH) ^ numbers[place : len(words) - RUN + 1 + place]
    return ((runs[:, None] * FACTORS + OFFSETS) >> np.uint64(32)).min(0).astype(np.uint32)


class NearDuplicates(Counting):
    """A question with its better answer that are almost an earlier pair's, word for word."""

    name, weight, what = "near-duplicates", "warn", "near repeats"

    def __init__(self):
        super().__init__()
        self._known: list[np.ndarray] = []
        self._places: list[dict[bytes, int]] = [{} for _ in range(BANDS)]
        self._exact: set[int] = set()

    def concerns(self, seen: Seen) -> bool:
        text = plain(f"{said(seen.pair.prompt)} {said(seen.pair.chosen)}")
        words = text.split()
        if len(words) < SHORTEST or self._is_exact(text):
            return False  # the exact ones are the duplicates' or have another worse answer
        mine, width = sketch(words), ORDERS // BANDS
        bands = [mine[band * width : (band + 1) * width].tobytes() for band in range(BANDS)]
        known = {places[band] for places, band in zip(self._places, bands, strict=True) if band in places}
        if any(np.count_nonzero(self._known[place] == mine) >= ALIKE for place in known):
            return True
        for places, band in zip(self._places, bands, strict=True):
            places.setdefault(band, len(self._known))
        self._known.append(mine)
        return False

    def _is_exact(self, text: str) -> bool:
        number = hash_of(text)
        known = number in self._exact
        self._exact.add(number)
        return known

    def words(self, total: int) -> str:
        return f"{share(self.count, total)} are almost an earlier one, question and better answer alike. They weigh more than the others."


def hash_of(text: str) -> int:
    """A number for a text, the same in every process."""
    data = text.encode(errors="surrogatepass")
    return crc32(data) << 32 | crc32(data[::-1])
