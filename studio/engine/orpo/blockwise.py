"""Attention with a softcap (Gemma 2) or attention sinks (gpt-oss), in blocks of scores that the backward pass recomputes.

torch has no fused kernel for either. Written as separate operations, attention saves the score of every query over every key for
the backward pass; this one saves query, key, value and one log-sum-exp for each query and head, much as flash attention does
(Dao et al., arXiv 2205.14135). Unlike there, a block holds every key that its queries see, so its softmax is final and the
backward pass does without the output.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

BLOCK_BYTES = {"cpu": 8 * 1024**2, "cuda": 64 * 1024**2}
"""Memory for a block's scores and everything computed from them. No more than the LM head's tile of logits, which is freed by then,
so that plans of a pass need no room for both."""

ROWS = {"cpu": 64, "cuda": 512}
"""Queries in a block, at most: half of their scores over each other are above the causal diagonal. Measured on a CPU, a guess on a GPU."""

BUFFERS = 3
"""What the backward pass holds of a block: tanh of the scores, probabilities and the gradient of either."""

Stretch = tuple[slice, tuple[slice, ...]]
"""Places in a row of queries that attend together, and of their keys. The queries are the last of the keys."""


@dataclass(frozen=True)
class Rule:
    """A query's score over a key: softcap * tanh(scale * query.key / softcap), or scale * query.key without a softcap.

    With a `window` a query sees that many keys, itself included.
    """

    scale: float
    softcap: float | None = None
    window: int | None = None

    @property
    def steepness(self) -> float:
        """The factor of query.key ahead of the tanh, or of the softmax without one."""
        return self.scale if self.softcap is None else self.scale / self.softcap


def blockwise_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sinks: torch.Tensor | None,
                        stretches: Sequence[Stretch], rule: Rule) -> torch.Tensor:
    """Causal attention within each stretch. query (1, heads, tokens, width), key (1, key heads, tokens, width),
    value (1, key heads, tokens, value width), sinks (heads,) -> (1, tokens, heads, value width).

    Every token must be a query of exactly one stretch. Scores are in float32 at least; the output has the query's type.
    """
    return _Blockwise.apply(query, key, value, sinks, stretches, rule)


class _Blockwise(torch.autograd.Function):
    """Saves its inputs and the log-sum-exp of each query's scores and sink."""

    @staticmethod
    def forward(ctx, query, key, value, sinks, stretches, rule):
        out = query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])
        logsumexp = query.new_empty(out.shape[1:3], dtype=_wide(query))
        with torch.autocast(query.device.type, enabled=False):
            blocks = _Blocks(query, key, value, rule, stretches)
            for stretch in stretches:
                blocks.attend(stretch, sinks, out, logsumexp)
        ctx.save_for_backward(query, key, value, sinks, logsumexp)
        ctx.stretches, ctx.rule = stretches, rule
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        query, key, value, sinks, logsumexp = ctx.saved_tensors
        by_query = torch.empty_like(query[0].transpose(0, 1), memory_format=torch.contiguous_format)
        by_key, by_value = (torch.zeros_like(side[0].transpose(0, 1), dtype=_wide(side)) for side in (key, value))
        shift = torch.empty_like(logsumexp)
        with torch.autocast(query.device.type, enabled=False):
            blocks = _Blocks(query, key, value, ctx.rule, ctx.stretches)
            for stretch in ctx.stretches:
                blocks.attend_backward(stretch, upstream, logsumexp, shift, by_query, by_key, by_value)
            by_sinks = -((sinks - logsumexp).exp_() * shift).sum(0).to(sinks.dtype) if ctx.needs_input_grad[3] else None
        by_inputs = (side.to(query.dtype).transpose(0, 1)[None] for side in (by_query, by_key, by_value))
        return *by_inputs, by_sinks, None, None


class _Blocks:
    """A row's attention, computed in blocks that share their buffers.

    Within a block the queries of all heads that share a key head are the rows of one matrix, (queries * group, width), so that
    keys and values are not repeated.
    """

    def __init__(self, query, key, value, rule: Rule, stretches: Sequence[Stretch]):
        self.query, self.key, self.value, self.rule = query[0].transpose(0, 1), key[0], value[0], rule
        self.heads, self.group, self.wide = len(self.key), len(query[0]) // len(self.key), _wide(query)
        kind = "cuda" if query.is_cuda else "cpu"
        self.rows = ROWS[kind]
        longest = max(sum(part.stop - part.start for part in keys) for _, keys in stretches)
        whole = self.heads * self.group * min(self.rows, longest) * longest
        each = BUFFERS * self.wide.itemsize + (query.dtype.itemsize if _multiplies_16_bits(query) else 0)
        # A block of one query and one key head is the smallest there is.
        self.scores = max(self.group * longest, min(whole, BLOCK_BYTES[kind] // each))
        self.buffers = query.new_empty(BUFFERS, self.scores, dtype=self.wide)
        self.after = torch.ones(self.rows, self.rows, dtype=torch.bool, device=query.device).triu(1)[:, None]

    def attend(self, stretch: Stretch, sinks: torch.Tensor | None, out: torch.Tensor, logsumexp: torch.Tensor) -> None:
        """Fill in the stretch's rows of `out` (1, tokens, heads, width) and of `logsumexp` (tokens, heads)."""
        queries, keys, values = self._factors(stretch)
        attended, sums = (queries.new_empty(*queries.shape[:2], width, dtype=self.wide) for width in (values.shape[2], 1))
        for heads, rows, seen, places in self._blocks(stretch):
            scores = self._buffer(0, heads, rows, seen)
            self._score(queries[heads, rows], keys[heads, seen], scores)
            if self.rule.softcap is not None:
                scores.tanh_().mul_(self.rule.softcap)
            self._hide(scores, places, seen)
            highest = scores.amax(-1, keepdim=True)
            total = scores.sub_(highest).exp_().sum(-1, keepdim=True)
            sums[heads, rows] = total.log().add_(highest)
            attended[heads, rows] = _product(scores.to(values.dtype), values[heads, seen]).div_(total)
        attended, sums = (self._by_token(side) for side in (attended, sums))
        if sinks is not None:
            with_sink = torch.logaddexp(sums, sinks[:, None].to(self.wide))
            attended.mul_((sums - with_sink).exp_())
            sums = with_sink
        out[0, stretch[0]], logsumexp[stretch[0]] = attended, sums[..., 0]

    def attend_backward(self, stretch: Stretch, upstream, logsumexp, shift, by_query, by_key, by_value) -> None:
        """Fill in the stretch's rows of the gradient `by_query` (tokens, heads, width), add to `by_key` and `by_value`.

        A softmax's gradient is p * (dp - sum(p * dp)); the sums are written to `shift` (tokens, heads).
        """
        (queries, keys, values), (span, parts) = self._factors(stretch), stretch
        upstream = self._by_key_head(upstream[0, span].to(queries.dtype))
        logsumexp = self._by_key_head(logsumexp[span][..., None])
        shifts = torch.empty_like(logsumexp)
        slopes = tuple(torch.zeros_like(side, dtype=self.wide) for side in (queries, keys, values))
        for heads, rows, seen, places in self._blocks(stretch):
            capped, shares, slope = (self._buffer(number, heads, rows, seen) for number in range(BUFFERS))
            self._score(queries[heads, rows], keys[heads, seen], capped)
            if self.rule.softcap is None:
                torch.sub(capped, logsumexp[heads, rows], out=shares)
            else:
                torch.add(-logsumexp[heads, rows], capped.tanh_(), alpha=self.rule.softcap, out=shares)
            self._hide(shares, places, seen)
            shares.exp_()
            _add_product(slopes[2][heads, seen], shares.transpose(1, 2), upstream[heads, rows])
            _product(upstream[heads, rows], values[heads, seen].transpose(1, 2), out=slope)
            shifts[heads, rows] = slope.mul_(shares).sum(-1, keepdim=True)
            slope.addcmul_(shares, shifts[heads, rows], value=-1)
            if self.rule.softcap is not None:
                torch.ops.aten.tanh_backward.grad_input(slope, capped, grad_input=slope)
            _add_product(slopes[0][heads, rows], slope, keys[heads, seen], self.rule.scale)
            _add_product(slopes[1][heads, seen], slope.transpose(1, 2), queries[heads, rows], self.rule.scale)
        by_query[span], shift[span] = self._by_token(slopes[0]), self._by_token(shifts)[..., 0]
        sizes = [part.stop - part.start for part in parts]
        for total, slope in ((by_key, slopes[1]), (by_value, slopes[2])):
            for part, piece in zip(parts, slope.transpose(0, 1).split(sizes), strict=True):
                total[part] += piece

    def _factors(self, stretch: Stretch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries (key heads, queries * group, width), keys and values (key heads, keys, width) of a stretch."""
        span, parts = stretch
        kind = self.query.dtype if _multiplies_16_bits(self.query) else self.wide
        return (self._by_key_head(self.query[span]).to(kind),
                *(torch.cat([side[:, part] for part in parts], 1).to(kind) for side in (self.key, self.value)))

    def _by_key_head(self, rows: torch.Tensor) -> torch.Tensor:
        """(queries, heads, width) -> (key heads, queries * group, width)."""
        return rows.unflatten(1, (self.heads, self.group)).transpose(0, 1).reshape(self.heads, -1, rows.shape[2])

    def _by_token(self, rows: torch.Tensor) -> torch.Tensor:
        """(key heads, queries * group, width) -> (queries, heads, width)."""
        return rows.unflatten(1, (-1, self.group)).transpose(0, 1).flatten(1, 2)

    def _blocks(self, stretch: Stretch) -> Iterator[tuple[slice, slice, slice, slice]]:
        """Blocks as (key heads, rows of the queries' matrix, keys, places of the queries among the keys)."""
        span, parts = stretch
        queries, width = span.stop - span.start, sum(part.stop - part.start for part in parts)
        window = self.rule.window or width
        size = min(self.rows, max(1, self.scores // (self.group * width)))
        for start in range(0, queries, size):
            stop = min(start + size, queries)
            places = slice(width - queries + start, width - queries + stop)
            seen = slice(max(0, places.start - window + 1), places.stop)
            rows = slice(start * self.group, stop * self.group)
            heads = max(1, self.scores // ((rows.stop - rows.start) * (seen.stop - seen.start)))
            for head in range(0, self.heads, heads):
                yield slice(head, min(head + heads, self.heads)), rows, seen, places

    def _buffer(self, number: int, heads: slice, rows: slice, seen: slice) -> torch.Tensor:
        """Room for a block's scores, (key heads, rows, keys)."""
        shape = [side.stop - side.start for side in (heads, rows, seen)]
        return self.buffers[number, : shape[0] * shape[1] * shape[2]].view(shape)

    def _score(self, queries: torch.Tensor, keys: torch.Tensor, out: torch.Tensor) -> None:
        """The products of queries and keys, multiplied by the rule's steepness."""
        if queries.dtype == out.dtype:
            out.baddbmm_(queries, keys.transpose(1, 2), beta=0, alpha=self.rule.steepness)
        else:
            _product(queries, keys.transpose(1, 2), out=out).mul_(self.rule.steepness)

    def _hide(self, scores: torch.Tensor, places: slice, seen: slice) -> None:
        """-inf for keys that come after a query or before its window: a triangle at either end of `seen`."""
        scores, queries = scores.unflatten(1, (-1, self.group)), places.stop - places.start
        scores[..., -queries:].masked_fill_(self.after[:queries, :, :queries], -torch.inf)
        if self.rule.window and (cut := places.stop - self.rule.window - seen.start) > 0:
            scores[:, -cut:, :, :cut].masked_fill_(~self.after[:cut, :, :cut], -torch.inf)


def _wide(side: torch.Tensor) -> torch.dtype:
    return torch.promote_types(side.dtype, torch.float32)


def _multiplies_16_bits(factor: torch.Tensor) -> bool:
    """Whether torch.bmm accepts 16-bit factors with a float32 output: on CUDA, but not on ROCm, which also reports is_cuda."""
    return factor.is_cuda and not torch.version.hip


def _product(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """left @ right, summed up and returned in float32 at least."""
    options = {} if left.dtype == _wide(left) else {"out_dtype": torch.float32}
    return torch.bmm(left, right, **options, **({} if out is None else {"out": out}))


def _add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor, scale: float = 1.0) -> None:
    """total += scale * left @ right; `left` takes the type of `right`."""
    if right.dtype == total.dtype:
        total.baddbmm_(left, right, alpha=scale)
    else:
        total.add_(_product(left.to(right.dtype), right), alpha=scale)
