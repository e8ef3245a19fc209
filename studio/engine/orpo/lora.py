"""LoRA layers computed with fewer passes over memory than PEFT's, for the same result.

PEFT computes base(x) + B(A(x)) * scaling: the product with B is written out, multiplied and added, three times the size
of the output. Here the scaling goes to the narrow A(x) and the sum into a product. Layers that are handed the same
input are computed together, in `joint`.

LoRA's dropout keeps a byte for each number of an input, which says whether it was dropped, and not the dropped input.
"""


import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from studio.engine.orpo import copies
from studio.engine.orpo.anew import Way, source_of
from studio.engine.orpo.arithmetic import PLAIN, Unpack, multiplies_16_bits, product
from studio.engine.orpo.frozen import add_product, multiplies_in

KINDS = {"Linear", "Linear4bit"}


def is_plain(layer: LoraLayer) -> bool:
    """One ordinary adapter on an ordinary or a 4-bit layer: no variant such as DoRA, no bias of its own, nothing merged."""
    return (type(layer).__name__ in KINDS and type(layer.base_layer).__name__ in KINDS and len(layer.lora_A) == 1
            and list(layer.lora_A) == layer.active_adapters and not layer.lora_variant
            and layer.lora_B[layer.active_adapters[0]].bias is None and not layer.merged)


def product_type(x: torch.Tensor) -> torch.dtype:
    """What a product with x is computed in."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def narrow_of(layer: LoraLayer) -> nn.Parameter:
    """A, (rank, inputs), of the layer's one adapter."""
    return layer.lora_A[layer.active_adapters[0]].weight


def wide_of(layer: LoraLayer) -> nn.Parameter:
    """B, (outputs, rank), of the layer's one adapter."""
    return layer.lora_B[layer.active_adapters[0]].weight


def _is_at_work(layer: LoraLayer) -> bool:
    return not layer.disable_adapters and not layer.merged and len(layer.active_adapters) == 1


def dropout_of(layer: LoraLayer) -> float:
    """The share of the input that is to be dropped now."""
    drop = layer.lora_dropout[layer.active_adapters[0]]
    return drop.p if isinstance(drop, nn.Dropout) and drop.training else 0.0


# --- a layer ----------------------------------------------------------------------------------------------------


def alone(layer: LoraLayer, x: torch.Tensor, *inputs, unpack: Unpack = PLAIN.unpack, **options) -> torch.Tensor:
    if inputs or options or not takes(layer, x):
        return type(layer).forward(layer, x, *inputs, **options)
    rows = x.flatten(0, -2).to(product_type(x))
    rows, inner = _Narrowed.apply(rows, *source_of(x, rows), *narrowing(layer))
    return widened(layer, rows, inner, unpack).view(*x.shape[:-1], -1)


def takes(layer: LoraLayer, x: torch.Tensor) -> bool:
    """Whether the layer's adapter is at work and computes in the type of its product with x."""
    return _is_at_work(layer) and (torch.is_autocast_enabled(x.device.type)
                                   or narrow_of(layer).dtype == product_type(x))


def narrowing(layer: LoraLayer) -> tuple[torch.Tensor, float]:
    """What the first half of an adapter needs beside its input: A, (rank, inputs), and the share of the input that is dropped."""
    return narrow_of(layer), dropout_of(layer)


def widened(layer: LoraLayer, rows: torch.Tensor, inner: torch.Tensor, unpack: Unpack) -> torch.Tensor:
    """base(rows) + scaling * B inner, from rows (tokens, inputs) and inner = A dropout(rows), (tokens, rank): (tokens, outputs)."""
    base, scaling = layer.base_layer, layer.scaling[layer.active_adapters[0]]
    if not multiplies_in(base, rows.dtype):
        return base(rows).to(rows.dtype) + _Widened.apply(inner, wide_of(layer), scaling)
    # The large product comes last: a layer that is recomputed in the backward pass stops at the last thing it has to keep,
    # which is before its last large product, and is spared it.
    narrow_part = _Widened.apply(inner, wide_of(layer), scaling)
    return add_product(narrow_part if base.bias is None else narrow_part + base.bias.to(rows.dtype), rows, base, unpack)


def slope_of(weight: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """left.T @ right, the gradient of a weight, in the weight's type; summed up in 32 bits where the card can return these."""
    if weight.dtype is torch.float32 and left.dtype != weight.dtype and multiplies_16_bits(left):
        return product(left.t(), right)
    if left.shape[1] > right.shape[1]:
        # As a wide product: the tall one of the same numbers takes a CPU twice as long.
        return (right.t() @ left).to(weight.dtype).t()
    return (left.t() @ right).to(weight.dtype)


class _Widened(torch.autograd.Function):
    """scaling * B inner, from inner (tokens, rank) and B (outputs, rank): (tokens, outputs)."""

    @staticmethod
    def forward(ctx, inner: torch.Tensor, wide: torch.Tensor, scaling: float) -> torch.Tensor:
        scaled = inner * scaling
        ctx.save_for_backward(scaled, wide)
        ctx.scaling = scaling
        return scaled @ copies.in_type(wide, inner.dtype).t()

    @staticmethod
    def backward(ctx, upstream: torch.Tensor):
        scaled, wide = ctx.saved_tensors
        by_inner = (upstream @ copies.in_type(wide, scaled.dtype)).mul_(ctx.scaling) if ctx.needs_input_grad[0] else None
        return by_inner, slope_of(wide, upstream, scaled), None


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
        return through, dropped @ copies.in_type(narrow, x.dtype).t()

    @staticmethod
    def backward(ctx, through: torch.Tensor, upstream: torch.Tensor):
        kept, narrow, stays = ctx.saved_tensors
        x = as_rows(ctx.way(kept), upstream, narrow)
        slope = slope_of(narrow, upstream, without(x, stays, ctx.share))
        given = with_narrow(through, upstream, copies.in_type(narrow, x.dtype), stays, ctx.share) if ctx.needs_input_grad[0] else None
        return given, None, None, slope, None


def as_rows(x: torch.Tensor, inner: torch.Tensor, narrow: torch.Tensor) -> torch.Tensor:
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
