"""Products with the frozen weight of a linear layer, in 16 or 32 bits or in 4.

A 4-bit weight is unpacked for each product, forward and backward, as bitsandbytes does it for long inputs.
"""

import torch
from torch import nn

from studio.engine.orpo.arithmetic import PLAIN, Unpack

FEW = 1536
"""Up to so many rows bitsandbytes may multiply without unpacking the whole weight; above, it does what is done here."""


def multiplies_in(base: nn.Module, dtype: torch.dtype) -> bool:
    """Whether the layer's own product is computed in this type, so that ours gives the same."""
    if type(base) is nn.Linear:
        return base.weight.dtype == dtype
    return base.compute_dtype == dtype


def weight_of(base: nn.Module, dtype: torch.dtype, unpack: Unpack) -> torch.Tensor:
    """The layer's weight, (outputs, inputs); one of 4 bits is unpacked into memory of its own."""
    return base.weight if type(base) is nn.Linear else unpack(base).to(dtype)


def product_with(rows: torch.Tensor, base: nn.Module, unpack: Unpack) -> torch.Tensor:
    """rows @ weight.T + bias, (tokens, outputs) from rows (tokens, inputs), without a gradient."""
    if type(base) is nn.Linear or unpack is PLAIN.unpack or len(rows) <= FEW:
        return base(rows)
    weight = weight_of(base, rows.dtype, unpack).t()
    return rows @ weight if base.bias is None else torch.addmm(base.bias.to(rows.dtype), rows, weight)


def add_product(total: torch.Tensor, rows: torch.Tensor, base: nn.Module, unpack: Unpack) -> torch.Tensor:
    """total + rows @ weight.T, written over `total`: (tokens, outputs) from rows (tokens, inputs)."""
    return _Added.apply(total, rows, base, unpack)


class _Added(torch.autograd.Function):
    """Saves no tensor: the weight is asked for again in the backward pass, and unpacked again if it is of 4 bits.

    A layer that is recomputed in the backward pass stops once it has all that was saved, and so before this product where it
    is the layer's last.
    """

    @staticmethod
    def forward(ctx, total: torch.Tensor, rows: torch.Tensor, base: nn.Module, unpack: Unpack) -> torch.Tensor:
        ctx.base, ctx.dtype, ctx.unpack = base, rows.dtype, unpack
        ctx.mark_dirty(total)
        return total.addmm_(rows, weight_of(base, rows.dtype, unpack).t())

    @staticmethod
    def backward(ctx, upstream: torch.Tensor):
        by_rows = upstream @ weight_of(ctx.base, ctx.dtype, ctx.unpack) if ctx.needs_input_grad[1] else None
        return upstream, by_rows, None, None
