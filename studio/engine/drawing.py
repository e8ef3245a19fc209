"""Which pairs a run draws, and which of them it holds out: by a number that each pair has of its own.

The number follows from the pair's content and the seed alone. So a pair is drawn or held out whatever other rows are left
out, whatever comes before it in the file, and identical pairs always end on the same side.
"""

import json
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from studio import plan
from studio.preferences.pairs import Pair
from studio.settings import DataSettings


def key(pair: Pair, seed: int) -> int:
    """A number below 2^64, the same for the same pair and seed on every machine. An exported script works it out likewise."""
    text = json.dumps([pair.prompt, pair.chosen, pair.rejected], sort_keys=True)
    return int.from_bytes(blake2b(f"{seed} {text}".encode(), digest_size=8).digest())


def drawn(keys: Sequence[int], held_out: Sequence[bool], settings: DataSettings, rules: int = plan.RULES) -> tuple[list[int], int]:
    """The places of the pairs that are drawn, in their order, and how many of them, the last, are held out.

    keys: each pair's number. held_out: for each pair whether the edits hold it out; if they hold out none, the pairs with the
    lowest numbers are, so that a lower count of rows or another share takes away from the same ones.
    """
    marks = np.asarray(held_out, dtype=bool)
    order = np.random.default_rng(settings.seed).permutation(len(marks)) if rules == 1 else np.argsort(
        np.asarray(keys, dtype=np.uint64), kind="stable")
    learned = order[~marks[order]][: settings.rows].tolist()
    kept_away = order[marks[order]].tolist()
    if kept_away:
        return learned + kept_away, len(kept_away)
    count = plan.held_out_for(len(learned), settings.held_out, rules)
    return (learned, count) if rules == 1 else (learned[count:] + learned[:count], count)
