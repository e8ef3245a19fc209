"""Which parts of two sequences are the same, in bounded time whatever they hold.

The longest common subsequence, a row of bits for each element (Crochemore and others 2001; Hyyrö 2004): n x m / 64 steps for
sequences of n and m elements. difflib's search takes the third power of that where few words come again and again.
"""

from collections.abc import Hashable, Iterator, Sequence

Block = tuple[int, int, int]
"""Where it begins in the first sequence, where in the second, and how many elements it has."""


def same(left: Sequence[Hashable], right: Sequence[Hashable]) -> list[Block]:
    """The stretches that both have, in order and without overlap, as many elements in all as can be."""
    first = next((at for at, (one, other) in enumerate(zip(left, right, strict=False)) if one != other), min(len(left), len(right)))
    rest = min(len(left), len(right)) - first
    last = next((at for at in range(rest) if left[len(left) - 1 - at] != right[len(right) - 1 - at]), rest)
    inner = _matches(left[first : len(left) - last], right[first : len(right) - last])
    pairs = [*((at, at) for at in range(first)), *((first + one, first + other) for one, other in inner),
             *((len(left) - last + at, len(right) - last + at) for at in range(last))]
    return list(_joined(pairs))


def _matches(left: Sequence[Hashable], right: Sequence[Hashable]) -> list[tuple[int, int]]:
    """The places of a longest common subsequence."""
    places: dict[Hashable, int] = {}
    for at, one in enumerate(right):
        places[one] = places.get(one, 0) | 1 << at
    full = (1 << len(right)) - 1
    rows = [full]  # a bit that is off: up to there one more is in common than before it
    for one in left:
        row = rows[-1]
        hits = row & places.get(one, 0)
        rows.append((row + hits | row - hits) & full)
    found, at, column = [], len(left), len(right)
    while at and column:
        bit = 1 << column - 1
        if rows[at] & bit:
            column -= 1
        elif not rows[at - 1] & bit:
            at -= 1
        else:
            at, column = at - 1, column - 1
            found.append((at, column))
    return found[::-1]


def _joined(pairs: list[tuple[int, int]]) -> Iterator[Block]:
    """Neighbouring places as one stretch."""
    begin = 0
    for at in range(1, len(pairs) + 1):
        if at == len(pairs) or (pairs[at][0] - pairs[at - 1][0], pairs[at][1] - pairs[at - 1][1]) != (1, 1):
            yield (*pairs[begin], at - begin)
            begin = at
