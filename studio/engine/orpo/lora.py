"""LoRA layers computed with fewer passes over memory than PEFT's, for the same result.

PEFT computes base(x) + B(A(x)) * scaling: the product with B is written out, multiplied and added, three times the size
of the output. Here the scaling goes to the narrow A(x) and the sum into a product. Layers that are handed the same
input (queries, keys and values; gate and up) are computed together: one product with all their A, and on the way back
one gradient of the input that every product is added to, instead of a tensor for each and their sums.

LoRA's dropout keeps a byte for each number of an input, which says whether it was dropped, and not the dropped input; layers
that are computed together have the same numbers dropped.
"""

from dataclasses import dataclass
from functools import partial

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn

from studio.engine.orpo.anew import Way, source_of
from studio.engine.orpo.forwards import Forwards
from studio.engine.orpo.frozen import add_product, multiplies_in, weight_of

KINDS = {"Linear", "Linear4bit"}

SAME_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names of layers that most families hand one and the same input, in the order in which they are called."""


def fused(model: PeftModel) -> Forwards:
    """Forward passes for every layer of which it is known to be the same; the others stay PEFT's."""
    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer) and is_plain(layer)]
    forwards, waiting = {layer: partial(_forward, layer) for layer in layers}, _Waiting()
    for module in model.modules():
        for names in SAME_INPUT:
            together = [getattr(module, name, None) for name in names]
            if all(layer in forwards for layer in together) and len({_kind(layer) for layer in together}) == 1:
                siblings = _Siblings(together, waiting)
                forwards |= {layer: partial(siblings.forward, layer) for layer in together}
    return forwards


def is_plain(layer: LoraLayer) -> bool:
    """One ordinary adapter on an ordinary or a 4-bit layer: no variant such as DoRA, no bias of its own, nothing merged."""
    return (type(layer).__name__ in KINDS and type(layer.base_layer).__name__ in KINDS and len(layer.lora_A) == 1
            and list(layer.lora_A) == layer.active_adapters and not layer.lora_variant
            and layer.lora_B[layer.active_adapters[0]].bias is None and not layer.merged)


def _kind(layer: LoraLayer) -> str:
    return type(layer.base_layer).__name__


def _dtype(x: torch.Tensor) -> torch.dtype:
    """What a product with x is computed in."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _is_at_work(layer: LoraLayer) -> bool:
    return not layer.disable_adapters and not layer.merged and len(layer.active_adapters) == 1


def _dropout(layer: LoraLayer) -> float:
    """The share of the input that is to be dropped now."""
    drop = layer.lora_dropout[layer.active_adapters[0]]
    return drop.p if isinstance(drop, nn.Dropout) and drop.training else 0.0


# --- a layer alone ----------------------------------------------------------------------------------------------------


def _forward(layer: LoraLayer, x: torch.Tensor, *inputs, **options) -> torch.Tensor:
    if inputs or options or not takes(layer, x):
        return type(layer).forward(layer, x, *inputs, **options)
    rows = x.flatten(0, -2).to(_dtype(x))
    rows, inner = _Narrowed.apply(rows, *source_of(x, rows), *narrowing(layer))
    return widened(layer, rows, inner).view(*x.shape[:-1], -1)


def takes(layer: LoraLayer, x: torch.Tensor) -> bool:
    """Whether the layer's adapter is at work and computes in the type of its product with x."""
    return _is_at_work(layer) and (torch.is_autocast_enabled(x.device.type)
                                   or layer.lora_A[layer.active_adapters[0]].weight.dtype == _dtype(x))


def narrowing(layer: LoraLayer) -> tuple[torch.Tensor, float]:
    """What the first half of an adapter needs beside its input: A, (rank, inputs), and the share of the input that is dropped."""
    return layer.lora_A[layer.active_adapters[0]].weight, _dropout(layer)


def widened(layer: LoraLayer, rows: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
    """base(rows) + scaling * B inner, from rows (tokens, inputs) and inner = A dropout(rows), (tokens, rank): (tokens, outputs)."""
    name, dtype = layer.active_adapters[0], rows.dtype
    inner, outer = inner * layer.scaling[name], layer.lora_B[name].weight.to(dtype).t()
    base, bias = layer.base_layer, layer.base_layer.bias
    if not multiplies_in(base, dtype):
        return torch.addmm(base(rows).to(dtype), inner, outer)
    # The large product comes last: a layer that is recomputed in the backward pass stops at the last thing it has to keep,
    # which is before its last large product, and is spared it.
    return add_product(inner @ outer if bias is None else torch.addmm(bias.to(dtype), inner, outer), rows, base)


class _Narrowed(torch.autograd.Function):
    """x as it is, and A dropout(x): x (tokens, inputs) and A (rank, inputs) give (tokens, inputs) and (tokens, rank).

    That x goes through here lets both its gradients be added up within a product. `kept` is kept instead of x, which is `way(kept)`.
    """

    @staticmethod
    def forward(ctx, x: torch.Tensor, kept: torch.Tensor, way: Way, narrow: torch.Tensor, share: float):
        dropped, stays = dropped_of(x, share)
        ctx.save_for_backward(kept, narrow, stays)
        ctx.way, ctx.share = way, share
        through = x.view_as(x)
        if not ctx.needs_input_grad[0]:
            ctx.mark_non_differentiable(through)
        return through, dropped @ narrow.to(x.dtype).t()

    @staticmethod
    def backward(ctx, through: torch.Tensor, upstream: torch.Tensor):
        kept, narrow, stays = ctx.saved_tensors
        x = _rows(ctx.way(kept), upstream, narrow)
        slope = (upstream.t() @ without(x, stays, ctx.share)).to(narrow.dtype)
        given = with_narrow(through, upstream, narrow.to(x.dtype), stays, ctx.share) if ctx.needs_input_grad[0] else None
        return given, None, None, slope, None


def _rows(x: torch.Tensor, inner: torch.Tensor, narrow: torch.Tensor) -> torch.Tensor:
    """x as rows of as many numbers as A takes, in the type in which the product with A was computed."""
    return x.reshape(-1, narrow.shape[1]).to(inner.dtype)


def with_narrow(through: torch.Tensor, upstream: torch.Tensor, narrow: torch.Tensor, stays: torch.Tensor | None,
                share: float) -> torch.Tensor:
    """The gradient of an input from what came back for it directly, (tokens, inputs), and for A of it, (tokens, rank)."""
    if stays is None:
        return torch.addmm(through, upstream, narrow)
    return without(upstream @ narrow, stays, share).add_(through)


def dropped_of(x: torch.Tensor, share: float) -> tuple[torch.Tensor, torch.Tensor | None]:
    """x without a random share of its numbers, the others grown to keep the sum; and which of them stayed, if not all."""
    return torch.native_dropout(x, share, True) if share else (x, None)


def without(x: torch.Tensor, stays: torch.Tensor | None, share: float) -> torch.Tensor:
    """The same of the same numbers, by what stayed."""
    return x if stays is None else (x * stays).mul_(1 / (1 - share))


# --- layers with one input --------------------------------------------------------------------------------------------


class _Waiting:
    """What the siblings of the layer that was called last have made of the same input and not been asked for yet.

    One for the whole model: what nobody asks for is let go of as soon as the next siblings are called.
    """

    def __init__(self):
        self.given: torch.Tensor | None = None
        self.made: dict[int, torch.Tensor] = {}
        self.of: _Siblings | None = None


class _Siblings:
    """Layers that are computed together when the first of them is called."""

    def __init__(self, layers: list[LoraLayer], waiting: _Waiting):
        self.layers, self.waiting, self.apart = layers, waiting, False

    def forward(self, layer: LoraLayer, x: torch.Tensor, *inputs, **options) -> torch.Tensor:
        waiting = self.waiting
        if waiting.given is x and id(layer) in waiting.made:
            made = waiting.made.pop(id(layer))
            if not waiting.made:
                waiting.given = None
            return made
        if layer is not self.layers[0] or self.apart or inputs or options or not self._can_join(x):
            return _forward(layer, x, *inputs, **options)
        if waiting.made and waiting.of is self:  # this family hands them different inputs after all
            self.apart = True
        waiting.given, waiting.of = x, self
        waiting.made = dict(zip(map(id, self.layers), self._joined(x), strict=True))
        return self.forward(layer, x)

    def _can_join(self, x: torch.Tensor) -> bool:
        """Whether the products of all are of one type, and as much is to be dropped of the input for each."""
        dtype = _dtype(x)
        return all(takes(layer, x) and _dropout(layer) == _dropout(self.layers[0]) and multiplies_in(layer.base_layer, dtype)
                   for layer in self.layers)

    def _joined(self, x: torch.Tensor) -> list[torch.Tensor]:
        names = [layer.active_adapters[0] for layer in self.layers]
        adapters = [side[name].weight for layer, name in zip(self.layers, names, strict=True) for side in (layer.lora_A, layer.lora_B)]
        scalings = [layer.scaling[name] for layer, name in zip(self.layers, names, strict=True)]
        rows = x.flatten(0, -2).to(_dtype(x))
        kept, way = source_of(x, rows)
        sides = _Sides([layer.base_layer for layer in self.layers], scalings, _dropout(self.layers[0]), way)
        return [one.view(*x.shape[:-1], -1) for one in _Joint.apply(rows, kept, sides, *adapters)]


@dataclass(frozen=True)
class _Sides:
    """What siblings have beside their adapters: their bases, what their parts are multiplied with, the share of x that is
    dropped, and the way in which x is made of what is kept."""

    bases: list[nn.Module]
    scalings: list[float]
    dropout: float
    way: Way


class _Joint(torch.autograd.Function):
    """base_i(x) + scaling_i * B_i A_i dropout(x) for layers i of one input.

    x (tokens, inputs), made of `kept`, which is kept instead; `adapters` are A_1, B_1, A_2, B_2, ... with A_i (rank, inputs)
    and B_i (outputs, rank).
    """

    @staticmethod
    def forward(ctx, x: torch.Tensor, kept: torch.Tensor, sides: _Sides, *adapters: torch.Tensor):
        narrow = torch.cat([one.to(x.dtype) for one in adapters[0::2]])
        dropped, stays = dropped_of(x, sides.dropout)
        inner = dropped @ narrow.t()
        parts = inner.split([len(one) for one in adapters[0::2]], 1)
        made = [base(x).addmm_(part, wide.to(x.dtype).t(), alpha=scaling)
                for base, part, wide, scaling in zip(sides.bases, parts, adapters[1::2], sides.scalings, strict=True)]
        ctx.save_for_backward(kept, stays, inner, *adapters)
        ctx.sides = sides
        return tuple(made)

    @staticmethod
    def backward(ctx, *upstream: torch.Tensor):
        kept, stays, inner, *adapters = ctx.saved_tensors
        sides, dtype = ctx.sides, inner.dtype
        narrow = torch.cat([one.to(dtype) for one in adapters[0::2]])
        ranks = [len(one) for one in adapters[0::2]]
        slopes = torch.empty_like(inner)
        wide_slopes = []
        for part, slope, wide, scaling, gradient in zip(inner.split(ranks, 1), slopes.split(ranks, 1), adapters[1::2], sides.scalings,
                                                        upstream, strict=True):
            slope.copy_(gradient @ wide.to(dtype)).mul_(scaling)
            # As a wide product: the tall one of the same numbers takes a CPU twice as long.
            wide_slopes.append((part.t() @ gradient).mul_(scaling).to(wide.dtype).t())
        x = _rows(sides.way(kept), inner, narrow)
        narrow_slopes = (slopes.t() @ without(x, stays, sides.dropout)).to(adapters[0].dtype).split(ranks)
        given = None
        if ctx.needs_input_grad[0]:
            given = without(slopes @ narrow, stays, sides.dropout)
            for gradient, base in zip(upstream, sides.bases, strict=True):
                given.addmm_(gradient, weight_of(base, dtype))
        return given, None, None, *(one for pair in zip(narrow_slopes, wide_slopes, strict=True) for one in pair)
