"""The four length sets that engines are compared on: pairs of random tokens, the same for every contender."""

from collections.abc import Iterator

import numpy as np

from studio.engine.tokens import Encoded

SETS = {"fixed": 2, "log-normal": 4, "long prompt": 4, "short prompt": 4}
"""Pairs a batch, by set."""
FULL = "full length"
PAIRS = SETS | {FULL: 2}
"""The same with two pairs of 1,024 tokens an answer, by which the memory of a card is judged."""
MEANS = {"fixed": (200, 300, 300), "log-normal": (200, 300, 300), "long prompt": (500, 120, 120), "short prompt": (40, 350, 350),
         FULL: (512, 512, 512)}
"""Tokens of prompt, chosen and rejected. In the log-normal set these are medians, with a spread of 0.6 in the logarithm."""
SPREAD, SHORTEST, LONGEST = 0.6, 8, 1500


def batches(name: str, vocabulary: int, seed: int, scale: float = 1.0) -> Iterator[list[Encoded]]:
    """Endless batches of a set; `scale` multiplies all lengths."""
    rng = np.random.default_rng(seed)
    while True:
        yield [_pair(name, vocabulary, rng, scale) for _ in range(PAIRS[name])]


def _pair(name: str, vocabulary: int, rng: np.random.Generator, scale: float) -> Encoded:
    lengths = scale * np.array(MEANS[name], dtype=float)
    if name == "log-normal":
        lengths = np.clip(lengths * np.exp(SPREAD * rng.standard_normal(3)), SHORTEST, LONGEST)
    prompt, chosen, rejected = (rng.integers(3, vocabulary, int(length)) for length in lengths)
    # Different first tokens, so that the answers share the prompt and nothing more by chance.
    rejected[0] = chosen[0] + 1 if chosen[0] + 1 < vocabulary else 3
    return Encoded(len(prompt), np.concatenate([prompt, chosen]), np.concatenate([prompt, rejected]))
