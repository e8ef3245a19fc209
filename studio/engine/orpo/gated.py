"""Gated products that keep their two factors and nothing else, the adapter's share of the layer that follows included.

A product of a gate's activation with the widened path keeps the activation besides, and the adapter of the layer that it
is handed to keeps the product. Both are worked out anew here on the way back, one cheap pass over memory: of the four
widest things that an MLP keeps, two are left.
"""

from collections.abc import Callable

import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.nn.functional import gelu, silu
from transformers.activations import GELUTanh, SiLUActivation

from studio.engine.orpo import lora

KINDS = {SiLUActivation: "silu", nn.SiLU: "silu", GELUTanh: "gelu"}
"""Activations whose slope torch works out in one pass, by the classes that models have for them."""


def gated_mlps(module: nn.Module) -> list[Callable[..., torch.Tensor]]:
    """down(act(gate(x)) * up(x)) (arXiv 2002.05202), gate and up two layers or one, with an activation whose slope torch has."""
    kind = KINDS.get(type(getattr(module, "act_fn", getattr(module, "activation_fn", None))))
    if kind is None or not hasattr(module, "down_proj"):
        return []
    if hasattr(module, "gate_proj") and hasattr(module, "up_proj"):
        return [lambda x: _down(module.down_proj, module.gate_proj(x), module.up_proj(x), kind)]
    if hasattr(module, "gate_up_proj"):
        return [lambda x: _down(module.down_proj, *module.gate_up_proj(x).chunk(2, dim=-1), kind)]
    return []


def _down(layer: nn.Module, gate: torch.Tensor, up: torch.Tensor, kind: str) -> torch.Tensor:
    if not (isinstance(layer, LoraLayer) and lora.is_plain(layer) and lora.takes(layer, gate)):
        return layer(_Gated.apply(gate, up, kind))
    product, inner = _GatedAndNarrowed.apply(gate.flatten(0, -2), up.flatten(0, -2), kind, *lora.narrowing(layer))
    return lora.widened(layer, product, inner).view(*gate.shape[:-1], -1)


def _activated(gate: torch.Tensor, kind: str) -> torch.Tensor:
    return silu(gate) if kind == "silu" else gelu(gate, approximate="tanh")


def _slope(upstream: torch.Tensor, gate: torch.Tensor, kind: str) -> torch.Tensor:
    """The gradient of the gate from that of its activation."""
    if kind == "silu":
        return torch.ops.aten.silu_backward(upstream, gate)
    return torch.ops.aten.gelu_backward(upstream, gate, approximate="tanh")


class _Gated(torch.autograd.Function):
    """activation(gate) * up, elementwise, of which gate and up are kept."""

    @staticmethod
    def forward(ctx, gate: torch.Tensor, up: torch.Tensor, kind: str) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        ctx.kind = kind
        return _activated(gate, kind).mul_(up)

    @staticmethod
    def backward(ctx, upstream: torch.Tensor):
        gate, up = ctx.saved_tensors
        return _slope(upstream * up, gate, ctx.kind), _activated(gate, ctx.kind).mul_(upstream), None


class _GatedAndNarrowed(torch.autograd.Function):
    """p = activation(gate) * up, and A dropout(p): gate and up (tokens, width), A (rank, width) give (tokens, width), (tokens, rank)."""

    @staticmethod
    def forward(ctx, gate: torch.Tensor, up: torch.Tensor, kind: str, narrow: torch.Tensor, share: float):
        product = _activated(gate, kind).mul_(up)
        dropped, stays = lora.dropped_of(product, share)
        ctx.save_for_backward(gate, up, narrow, stays)
        ctx.kind, ctx.share = kind, share
        return product, dropped @ narrow.to(product.dtype).t()

    @staticmethod
    def backward(ctx, by_product: torch.Tensor, by_inner: torch.Tensor):
        gate, up, narrow, stays = ctx.saved_tensors
        activated = _activated(gate, ctx.kind)
        slope = (by_inner.t() @ lora.without(activated * up, stays, ctx.share)).to(narrow.dtype)
        upstream = lora.with_narrow(by_product, by_inner, narrow.to(gate.dtype), stays, ctx.share)
        by_up = activated.mul_(upstream)
        return _slope(upstream.mul_(up), gate, ctx.kind), by_up, None, slope, None
