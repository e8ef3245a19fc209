"""Attention over trunks and branches: every pair of a packed row apart, a branch seeing its trunk's shared tokens.

Registered with transformers as an attention implementation of its own. The layout travels as a keyword of the model's
forward; a call without one (generation, say) falls through to torch's ordinary attention.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from itertools import accumulate, pairwise

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from studio.engine.orpo import packing
from studio.engine.orpo.blockwise import Rule, Stretch, blockwise_attention
from studio.engine.orpo.packing import Branch

NAME = "orpo_branches"

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # torch before 2.10
    varlen_attn = None


class Layout:
    """The stretches of a packed row that attend together: each pair's trunk, and each branch over its shared tokens."""

    def __init__(self, branches: Sequence[Branch], device: torch.device):
        self.branches, self.device = tuple(branches), device
        self._bands: dict[tuple[int, int, int], torch.Tensor] = {}

    def band(self, queries: int, keys: int, window: int | None) -> torch.Tensor:
        """Which keys each of the last `queries` of `keys` places may see, (queries, keys), True where it may."""
        kind = (queries, keys, window or keys)
        if kind not in self._bands:
            query = torch.arange(keys - queries, keys, device=self.device)[:, None]
            key = torch.arange(keys, device=self.device)
            self._bands[kind] = (key <= query) & (key > query - kind[2])
        return self._bands[kind]

    @cached_property
    def parts(self) -> list[int]:
        """The row cut into what attention reads as a whole, sizes in order: of each pair shared tokens, chosen's own, rejected's own."""
        return [size for one in self.branches for size in (one.shared, one.trunk - one.shared, one.branch)]

    @cached_property
    def stretches(self) -> list[tuple[int, tuple[int, int]]]:
        """(queries, keys) of every stretch, how many queries and which two parts: trunks over shared tokens and their own,
        branches over shared tokens and their own."""
        return [stretch for number, one in enumerate(self.branches)
                for stretch in ((one.trunk, (3 * number, 3 * number + 1)), (one.branch, (3 * number, 3 * number + 2))) if stretch[0]]

    @cached_property
    def spans(self) -> list[Stretch]:
        """Where in the row each stretch's queries and keys lie."""
        ends = list(accumulate(self.parts, initial=0))
        queries = list(accumulate((queries for queries, _ in self.stretches), initial=0))
        return [(slice(*span), tuple(slice(ends[part], ends[part + 1]) for part in keys))
                for span, (_, keys) in zip(pairwise(queries), self.stretches, strict=True)]

    @cached_property
    def varlen(self) -> dict[str, torch.Tensor | int]:
        """The same for one call over all stretches: which keys, in a row, and where queries and keys of each begin.

        Worked out on the CPU and sent in three pieces, so that the card is neither asked nor waited for.
        """
        places = torch.arange(sum(self.parts)).split(self.parts)
        widths = torch.tensor([(queries, sum(self.parts[part] for part in keys)) for queries, keys in self.stretches], dtype=torch.int32)
        starts = torch.zeros(2, len(widths) + 1, dtype=torch.int32)
        starts[:, 1:] = widths.t().cumsum(1)
        keys = torch.cat([places[part] for _, keys in self.stretches for part in keys])
        return {"keys": packing.sent(keys, self.device), "cu_seq_q": packing.sent(starts[0].clone(), self.device),
                "cu_seq_k": packing.sent(starts[1].clone(), self.device),
                "max_q": int(widths[:, 0].max()), "max_k": int(widths[:, 1].max())}


def branch_attention(module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
                     attention_mask: torch.Tensor | None, dropout: float = 0.0, scaling: float | None = None,
                     layout: Layout | None = None, **options) -> tuple[torch.Tensor, None]:
    """Attention as transformers calls it. query, key, value: (1, heads, tokens, width); returns (1, tokens, heads, width).

    `options` that change the result and are honoured: `sliding_window`, `softcap`, `s_aux` (attention sinks).
    """
    window = options.get("sliding_window")
    softcap, sinks = options.get("softcap"), options.get("s_aux")
    if layout is None and softcap is None and sinks is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options)
    if layout is None:
        return _masked(_spelled_out(softcap, sinks), query, key, value, attention_mask, dropout, scaling), None
    if softcap is not None or sinks is not None:
        if dropout == 0:
            rule = Rule(query.shape[-1] ** -0.5 if scaling is None else scaling, softcap, window)
            return blockwise_attention(query, key, value, sinks, layout.spans, rule), None
        attend = _spelled_out(softcap, sinks)
    elif query.is_cuda and dropout == 0 and _takes_varlen(query, value):
        return _one_call(query, key, value, layout, scaling, window), None
    else:
        attend = scaled_dot_product_attention
    # Cut all at once and put together by cat: on the way back a slice would fill a whole row with zeros, each of them.
    groups, parts = query.shape[1] // key.shape[1], (key.split(layout.parts, 2), value.split(layout.parts, 2))
    made = []
    for rows, (_, which) in zip(query.split([queries for queries, _ in layout.stretches], 2), layout.stretches, strict=True):
        keys, values = (_joined([side[part] for part in which], groups) for side in parts)
        made.append(_stretch(attend, rows, keys, values, layout, window, dropout, scaling))
    return torch.cat(made, dim=2).transpose(1, 2), None


def _masked(attend, query, key, value, mask: torch.Tensor | None, dropout: float, scaling: float | None) -> torch.Tensor:
    """Attention of a call without a layout, as generation makes it, under transformers' boolean mask; without one it is causal."""
    groups = query.shape[1] // key.shape[1]
    if mask is None:
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril(key.shape[2] - query.shape[2])
    return attend(query, repeat_kv(key, groups), repeat_kv(value, groups), attn_mask=mask, is_causal=False, dropout_p=dropout,
                  scale=scaling).transpose(1, 2).contiguous()


def _joined(parts: list[torch.Tensor], groups: int) -> torch.Tensor:
    """Parts (1, heads, tokens, width) after one another, each head `groups` times, in one copy."""
    return torch.cat([part[:, :, None].expand(-1, -1, groups, -1, -1) for part in parts], 3).flatten(1, 2)


def _stretch(attend, query, keys, values, layout: Layout, window: int | None, dropout: float, scaling: float | None) -> torch.Tensor:
    """One stretch: the queries are the last places of the keys, each seeing those before it, itself included."""
    queries, width = query.shape[2], keys.shape[2]
    plain = queries == width and (window is None or window >= width) and attend is scaled_dot_product_attention
    mask = None if plain else layout.band(queries, width, window)
    return attend(query, keys, values, attn_mask=mask, is_causal=plain, dropout_p=dropout, scale=scaling)


def _spelled_out(softcap: float | None, sinks: torch.Tensor | None):
    """Attention with a softcap or sinks in torch's own operations, for dropout: autograd keeps every query's score over every key."""
    def attend(query, key, value, attn_mask, is_causal, dropout_p, scale):
        scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        scores = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
        if sinks is not None:
            scores = torch.cat([scores, sinks.reshape(1, -1, 1, 1).expand(scores.shape[0], -1, scores.shape[2], 1)], -1)
        shares = scores.softmax(-1, dtype=torch.float32).to(query.dtype)[..., : key.shape[2]]
        return nn.functional.dropout(shares, dropout_p) @ value

    return attend


def _takes_varlen(query: torch.Tensor, value: torch.Tensor) -> bool:
    """The kernel requires 16 bits, a head width of at most 256 that is a multiple of 8, and Ampere or newer."""
    width = query.shape[-1]
    return (varlen_attn is not None and query.dtype in (torch.bfloat16, torch.float16)
            and width == value.shape[-1] <= 256 and width % 8 == 0 and _capability(query.device) >= (8, 0))


@cache
def _capability(device: torch.device) -> tuple[int, int]:
    """The compute capability, cached: every layer asks for it in every pass."""
    return torch.cuda.get_device_capability(device)


def _one_call(query, key, value, layout: Layout, scaling: float | None, window: int | None) -> torch.Tensor:
    """All stretches in one call; with more keys than queries the kernel aligns its causal triangle to the last ones."""
    plan, takes = layout.varlen, _parameters(varlen_attn)
    left = -1 if window is None else window - 1
    options = {"window_size": (left, 0)} if "window_size" in takes else {"is_causal": True}
    if window is not None and "window_size" not in takes:
        raise NotImplementedError("This torch has no windowed attention over stretches of different lengths.")
    keys, values = (side.index_select(2, plan["keys"]) for side in (key, value))
    if (groups := query.shape[1] // key.shape[1]) > 1:
        if "enable_gqa" in takes:
            options["enable_gqa"] = True
        else:  # torch 2.11 wants as many heads of keys as of queries
            keys, values = (repeat_kv(side, groups) for side in (keys, values))
    return varlen_attn(query[0].transpose(0, 1), keys[0].transpose(0, 1), values[0].transpose(0, 1), plan["cu_seq_q"], plan["cu_seq_k"],
                       plan["max_q"], plan["max_k"], scale=scaling, **options)[None]


@cache
def _parameters(kernel: Callable) -> frozenset[str]:
    """What a kernel can be told by name; torch's has learned some from release to release."""
    return frozenset(inspect.signature(kernel).parameters)


@contextmanager
def branching(model: PreTrainedModel) -> Iterator[None]:
    """The model attends over branches meanwhile, where it is handed a layout. Raises what the model raises if it cannot."""
    before = model.config._attn_implementation
    if before == NAME:
        yield
        return
    model.set_attn_implementation(NAME)
    if model.config._attn_implementation != NAME:
        raise ValueError("its attention cannot be replaced")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


AttentionInterface.register(NAME, branch_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
