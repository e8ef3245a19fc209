"""Gated products that keep their two factors and nothing else, the adapter's share of the layer that follows included.

A product of a gate's activation with the widened path keeps the activation besides, and the adapter of the layer that it
is handed to keeps the product. Both are worked out anew here on the way back, one cheap pass over memory: of the four
widest things that an MLP keeps, two are left.
"""

from collections.abc import Callable

import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers.activations import GELUTanh, SiLUActivation

from studio.engine.orpo import copies, lora
from studio.engine.orpo.arithmetic import Arithmetic, Gated

KINDS = {SiLUActivation: "silu", nn.SiLU: "silu", GELUTanh: "gelu"}
"""The kinds of activation, by the classes that models have for them."""


def kind_of(module: nn.Module) -> str | None:
    """The kind of activation of a module that has one and projects down; None for any other."""
    return KINDS.get(type(getattr(module, "act_fn", getattr(module, "activation_fn", None)))) if hasattr(module, "down_proj") else None


def gated_mlps(module: nn.Module, arithmetic: Arithmetic) -> list[Callable[..., torch.Tensor]]:
    """down(act(gate(x)) * up(x)) (arXiv 2002.05202), gate and up two layers or one, with an activation that `arithmetic.gated` knows."""
    kind = kind_of(module)
    if kind is None:
        return []
    if hasattr(module, "gate_proj") and hasattr(module, "up_proj"):
        return [lambda x: _down(module.down_proj, module.gate_proj(x), module.up_proj(x), kind, arithmetic)]
    if hasattr(module, "gate_up_proj"):
        return [lambda x: _down(module.down_proj, *module.gate_up_proj(x).chunk(2, dim=-1), kind, arithmetic)]
    return []


def _down(layer: nn.Module, gate: torch.Tensor, up: torch.Tensor, kind: str, arithmetic: Arithmetic) -> torch.Tensor:
    if not (isinstance(layer, LoraLayer) and lora.is_plain(layer) and lora.takes(layer, gate)):
        return layer(_Product.apply(gate, up, kind, arithmetic.gated))
    product, inner = ProductAndNarrowed.apply(gate.flatten(0, -2), up.flatten(0, -2), kind, arithmetic.gated, *lora.narrowing(layer))
    return lora.widened(layer, product, inner, arithmetic.unpack).view(*gate.shape[:-1], -1)


class _Product(torch.autograd.Function):
    """activation(gate) * up, elementwise, of which gate and up are kept."""

    @staticmethod
    def forward(ctx, gate: torch.Tensor, up: torch.Tensor, kind: str, gated: Gated) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        ctx.kind, ctx.gated = kind, gated
        return gated.forward(gate, up, kind)

    @staticmethod
    def backward(ctx, upstream: torch.Tensor):
        gate, up = ctx.saved_tensors
        by_gate, by_up, _ = ctx.gated.backward(upstream, gate, up, ctx.kind, False)
        return by_gate, by_up, None, None


class ProductAndNarrowed(torch.autograd.Function):
    """p = activation(gate) * up, and A dropout(p): gate and up (tokens, width), A (rank, width) give (tokens, width), (tokens, rank)."""

    @staticmethod
    def forward(ctx, gate: torch.Tensor, up: torch.Tensor, kind: str, gated: Gated, narrow: torch.Tensor, share: float):
        product = gated.forward(gate, up, kind)
        dropped, stays = lora.dropped_of(product, share)
        ctx.save_for_backward(gate, up, narrow, stays)
        ctx.kind, ctx.gated, ctx.share = kind, gated, share
        return product, dropped @ copies.in_type(narrow, product.dtype).t()

    @staticmethod
    def backward(ctx, by_product: torch.Tensor, by_inner: torch.Tensor):
        gate, up, narrow, stays = ctx.saved_tensors
        upstream = lora.with_narrow(by_product, by_inner, copies.in_type(narrow, gate.dtype), stays, ctx.share)
        by_gate, by_up, product = ctx.gated.backward(upstream, gate, up, ctx.kind, True)
        slope = lora.slope_of(narrow, by_inner, lora.without(product, stays, ctx.share))
        return by_gate, by_up, None, None, slope, None
