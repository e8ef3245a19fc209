"""Pairs -> batches: branch-packed rows where the model allows it, padded rows where it does not.

Both kinds compute the same thing: which hidden state predicts which token, and what each prediction weighs. A pair
with the token lists c and r is packed as a trunk c and a branch r[k:], where k counts the tokens both begin with; the
branch's positions go on from k. It knows nothing of models.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from studio.engine.tokens import Encoded

Scope = Literal["sequence", "completion"]


@dataclass(frozen=True)
class Weighted:
    """A pair and its part in an optimizer step, whichever batch it is computed in.

    `share` is its weight in means over pairs, `nll` the weight of one of its predicted tokens.
    """

    pair: Encoded
    share: float
    nll: float


@dataclass(frozen=True)
class Branch:
    """Where one pair stands in a packed row: trunk at start..start+trunk, then `branch` tokens that go on from `shared`."""

    start: int
    trunk: int
    shared: int
    branch: int


@dataclass(frozen=True)
class Batch:
    """What the model reads, and what is to be made of it. All tensors stand on one device.

    ids, positions: (rows, tokens). mask: (rows, tokens), 1 for real tokens, or None in a packed batch.
    branches: the pairs of the single row of a packed batch, else empty.
    at, targets, pair: (scored,) the flat place of a hidden state, the token it predicts, the pair both belong to.
    weights: (3, scored) what a log-probability adds to its pair's chosen mean, its rejected mean and the NLL.
    shares: (pairs,). counts: (rows * tokens,) how often a token stands in the unpacked pairs.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor | None
    branches: tuple[Branch, ...]
    at: torch.Tensor
    targets: torch.Tensor
    pair: torch.Tensor
    weights: torch.Tensor
    shares: torch.Tensor
    counts: torch.Tensor

    def to(self, device: torch.device) -> "Batch":
        """The same on another device, without waiting for the copies."""
        if self.ids.device == device:
            return self
        return replace(self, **{name: sent(value, device) for name, value in vars(self).items() if isinstance(value, torch.Tensor)})


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU's on a device. A card is not waited for: what it still computes goes on meanwhile."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


# --- what each pair weighs -------------------------------------------------------------------------------------------


def weigh(pairs: Sequence[Encoded], batch_size: int, scope: Scope = "sequence") -> list[Weighted]:
    """The pairs of one optimizer step with the weights that batches of `batch_size`, averaged, would give them.

    As in the reference, NLL is a mean over the tokens of a batch and the rest a mean over its pairs, and a step is the
    mean of its batches. With the weights settled here, any other division of the step computes the same.
    """
    weighted = []
    batches = [pairs[start : start + batch_size] for start in range(0, len(pairs), batch_size)]
    for batch in batches:
        tokens = sum(len(pair.chosen) - _first(pair, scope) for pair in batch)
        weighted += [Weighted(pair, 1 / (len(batch) * len(batches)), 1 / (tokens * len(batches))) for pair in batch]
    return weighted


def _first(pair: Encoded, scope: Scope) -> int:
    """The first token whose prediction counts for NLL; nothing stands before a text's first token to predict it from."""
    return max(1, pair.prompt if scope == "completion" else 1)


# --- which pairs go together ------------------------------------------------------------------------------------------


def grouped(pairs: Sequence[Weighted], budget: int, packed: bool) -> list[list[Weighted]]:
    """The pairs in as few batches of at most `budget` tokens as first-fit-decreasing finds, long ones first.

    A pair that is over the budget alone gets a batch of its own. In padded batches every row costs the longest.
    """
    ordered = sorted(pairs, key=lambda one: cost(one.pair, packed), reverse=True)
    if not packed:
        return list(_padded_groups(ordered, budget))
    groups, room = [], []
    for one in ordered:
        size = cost(one.pair, packed)
        place = next((place for place, left in enumerate(room) if left >= size), None)
        if place is None:
            groups.append([])
            room.append(budget)
            place = len(groups) - 1
        groups[place].append(one)
        room[place] -= size
    return groups


def _padded_groups(ordered: list[Weighted], budget: int) -> Iterator[list[Weighted]]:
    while ordered:
        size = max(1, budget // cost(ordered[0].pair, packed=False))
        yield ordered[:size]
        ordered = ordered[size:]


def cost(pair: Encoded, packed: bool) -> int:
    """Tokens that the pair takes up in a batch whose longest it is."""
    if packed:
        return len(pair.chosen) + len(pair.rejected) - shared(pair)
    return 2 * max(len(pair.chosen), len(pair.rejected))


def size(pair: Encoded) -> int:
    """Tokens of both texts."""
    return len(pair.chosen) + len(pair.rejected)


def shared(pair: Encoded) -> int:
    """How many tokens both texts begin with; at least the prompt."""
    size = min(len(pair.chosen), len(pair.rejected))
    differs = np.flatnonzero(np.asarray(pair.chosen[:size]) != np.asarray(pair.rejected[:size]))
    return int(differs[0]) if len(differs) else size


# --- batches ----------------------------------------------------------------------------------------------------------


def pack(pairs: Sequence[Weighted], scope: Scope = "sequence") -> Batch:
    """One row without padding in which every pair's prompt stands once."""
    ids, positions, counts, scored, branches, start = [], [], [], [], [], 0
    for number, one in enumerate(pairs):
        pair, common = one.pair, shared(one.pair)
        chosen, rejected = len(pair.chosen), len(pair.rejected)
        ids += [pair.chosen, pair.rejected[common:]]
        positions += [np.arange(chosen), np.arange(common, rejected)]
        counts += [np.full(common, 2.0), np.ones(chosen - common), np.ones(rejected - common)]
        # The trunk predicts its own tokens; those that rejected begins with as well count for both answers.
        scored.append(_scored(one, number, scope, start, pair.chosen, until=common))
        # The branch's first token is predicted by the last shared one, the others by the branch itself.
        answer = np.arange(max(1, common), rejected)
        at = np.where(answer == common, start + common - 1, start + chosen + answer - common - 1)
        scored.append(_rejected(one, number, at, answer))
        branches.append(Branch(start, chosen, common, rejected - common))
        start += chosen + rejected - common
    return _batch(np.concatenate(ids)[None], np.concatenate(positions)[None], None, tuple(branches), scored,
                  pairs, np.concatenate(counts))


def pad(pairs: Sequence[Weighted], filler: int, scope: Scope = "sequence") -> Batch:
    """Two rows a pair, chosen above rejected, filled up on the right to the longest."""
    width = max(max(len(one.pair.chosen), len(one.pair.rejected)) for one in pairs)
    ids, mask = np.full((2 * len(pairs), width), filler), np.zeros((2 * len(pairs), width), dtype=int)
    scored = []
    for number, one in enumerate(pairs):
        for row, tokens in ((2 * number, one.pair.chosen), (2 * number + 1, one.pair.rejected)):
            ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
        scored.append(_scored(one, number, scope, 2 * number * width, one.pair.chosen, until=0))
        answer = np.arange(max(1, one.pair.prompt), len(one.pair.rejected))
        scored.append(_rejected(one, number, (2 * number + 1) * width + answer - 1, answer))
    positions = np.broadcast_to(np.arange(width), ids.shape)
    return _batch(ids, positions, torch.from_numpy(mask), (), scored, pairs, mask.reshape(-1).astype(float))


@dataclass(frozen=True)
class _Scored:
    """Predictions of one text: where, which token, whose, and what each adds to chosen, rejected and NLL."""

    at: np.ndarray
    targets: np.ndarray
    pair: int
    chosen: np.ndarray
    rejected: np.ndarray
    nll: np.ndarray


def _scored(one: Weighted, number: int, scope: Scope, start: int, tokens: Sequence[int], until: int) -> _Scored:
    """Chosen's predictions; its answer tokens before `until` are rejected's as well."""
    pair = one.pair
    place = np.arange(min(_first(pair, scope), max(1, pair.prompt)), len(tokens))
    rejected = np.where(place < until, _mean(place, pair.prompt, len(pair.rejected)), 0.0)
    return _Scored(start + place - 1, np.asarray(tokens)[place], number, _mean(place, pair.prompt, len(tokens)), rejected,
                   np.where(place >= _first(pair, scope), one.nll, 0.0))


def _rejected(one: Weighted, number: int, at: np.ndarray, answer: np.ndarray) -> _Scored:
    """Rejected's predictions at the places `answer` of its text, made by the hidden states `at`."""
    nothing = np.zeros(len(answer))
    return _Scored(at, np.asarray(one.pair.rejected)[answer], number, nothing,
                   _mean(answer, one.pair.prompt, len(one.pair.rejected)), nothing)


def _mean(place: np.ndarray, prompt: int, length: int) -> np.ndarray:
    """The weights that make a sum over an answer's tokens their mean."""
    first = max(1, prompt)
    return np.where(place >= first, 1 / max(1, length - first), 0.0)


def _batch(ids: np.ndarray, positions: np.ndarray, mask: torch.Tensor | None, branches: tuple[Branch, ...],
           scored: list[_Scored], pairs: Sequence[Weighted], counts: np.ndarray) -> Batch:
    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in scored])

    owner = np.concatenate([np.full(len(part.at), part.pair) for part in scored])
    weights = np.stack([joined("chosen"), joined("rejected"), joined("nll")])
    return Batch(ids=torch.from_numpy(np.array(ids, dtype=np.int64)), positions=torch.from_numpy(np.array(positions, dtype=np.int64)),
                 mask=mask, branches=branches, at=torch.from_numpy(joined("at").astype(np.int64)),
                 targets=torch.from_numpy(joined("targets").astype(np.int64)), pair=torch.from_numpy(owner.astype(np.int64)),
                 weights=torch.from_numpy(weights).float(), shares=torch.tensor([one.share for one in pairs]),
                 counts=torch.from_numpy(counts).float())
