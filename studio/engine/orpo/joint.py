"""LoRA layers that are handed the same input (queries, keys and values; gate and up), computed together.

One product with all their A, and in the backward pass one gradient of the input that every product is added to, instead of a
tensor for each and their sums. The same numbers of the input are dropped for all of them.
"""

from dataclasses import dataclass
from functools import partial

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn

from studio.engine.orpo import copies, lora, relief
from studio.engine.orpo.anew import Way, source_of
from studio.engine.orpo.arithmetic import PLAIN, Arithmetic, Unpack
from studio.engine.orpo.forwards import Forwards
from studio.engine.orpo.frozen import multiplies_in, product_with, weight_of

SAME_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Names of layers that most families hand one and the same input, in the order in which they are called."""


def fused(model: PeftModel, arithmetic: Arithmetic = PLAIN) -> Forwards:
    """Forward passes for every layer of which it is known to be the same; the others stay PEFT's."""
    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer) and lora.is_plain(layer)]
    forwards, waiting, groups = {layer: partial(lora.alone, layer, unpack=arithmetic.unpack) for layer in layers}, _Waiting(), []
    for module in model.modules():
        for names in SAME_INPUT:
            together = [getattr(module, name, None) for name in names]
            if all(layer in forwards for layer in together) and len({_kind(layer) for layer in together}) == 1:
                siblings = _Siblings(together, waiting, arithmetic.unpack)
                forwards |= {layer: partial(siblings.forward, layer) for layer in together}
                groups.append(together)
    joined_up = {layer for group in groups for layer in group}
    groups += [[layer] for layer in layers if layer not in joined_up]
    copies.Copies([lora.narrow_of(layer) for group in groups for layer in group] + [lora.wide_of(layer) for layer in layers])
    return forwards


def _kind(layer: LoraLayer) -> str:
    return type(layer.base_layer).__name__


class _Waiting:
    """What the siblings of the layer that was called last have made of the same input and not been asked for yet.

    One for the whole model: what nobody asks for is let go of as soon as the next siblings are called, or once memory ran out.
    """

    def __init__(self):
        self.let_go()
        relief.HOLDERS.add(self)

    def let_go(self) -> None:
        """Wait for nobody. A pass that failed between siblings (in a norm of the queries, say) never asks for the rest."""
        self.given: torch.Tensor | None = None
        self.made: dict[int, torch.Tensor] = {}
        self.of: _Siblings | None = None


class _Siblings:
    """Layers that are computed together when the first of them is called."""

    def __init__(self, layers: list[LoraLayer], waiting: _Waiting, unpack: Unpack):
        self.layers, self.waiting, self.unpack, self.apart = layers, waiting, unpack, False

    def forward(self, layer: LoraLayer, x: torch.Tensor, *inputs, **options) -> torch.Tensor:
        waiting = self.waiting
        if waiting.given is x and id(layer) in waiting.made:
            made = waiting.made.pop(id(layer))
            if not waiting.made:
                waiting.given = None
            return made
        if layer is not self.layers[0] or self.apart or inputs or options or not self._can_join(x):
            return lora.alone(layer, x, *inputs, unpack=self.unpack, **options)
        if waiting.made and waiting.of is self:  # this family hands them different inputs after all
            self.apart = True
        waiting.given, waiting.of = x, self
        waiting.made = dict(zip(map(id, self.layers), self._joined(x), strict=True))
        return self.forward(layer, x)

    def _can_join(self, x: torch.Tensor) -> bool:
        """Whether the products of all are of one type, and as much is to be dropped of the input for each."""
        dtype = lora.product_type(x)
        dropped = lora.dropout_of(self.layers[0])
        return all(lora.takes(layer, x) and lora.dropout_of(layer) == dropped and multiplies_in(layer.base_layer, dtype)
                   for layer in self.layers)

    def _joined(self, x: torch.Tensor) -> list[torch.Tensor]:
        adapters = [side for layer in self.layers for side in (lora.narrow_of(layer), lora.wide_of(layer))]
        scalings = [layer.scaling[layer.active_adapters[0]] for layer in self.layers]
        rows = x.flatten(0, -2).to(lora.product_type(x))
        kept, way = source_of(x, rows)
        sides = _Sides([layer.base_layer for layer in self.layers], scalings, lora.dropout_of(self.layers[0]), way, self.unpack)
        return [one.view(*x.shape[:-1], -1) for one in _Joint.apply(rows, kept, sides, *adapters)]


@dataclass(frozen=True)
class _Sides:
    """What siblings have beside their adapters: their bases, what their parts are multiplied with, the share of x that is
    dropped, the way in which x is made of what is kept, and how 4-bit weights are unpacked."""

    bases: list[nn.Module]
    scalings: list[float]
    dropout: float
    way: Way
    unpack: Unpack

    @property
    def alike(self) -> bool:
        """Whether all parts are multiplied with one number, so that one kernel does it for all."""
        return len(set(self.scalings)) == 1


class _Joint(torch.autograd.Function):
    """base_i(x) + scaling_i * B_i A_i dropout(x) for layers i of one input.

    x (tokens, inputs), made of `kept`, which is kept instead; `adapters` are A_1, B_1, A_2, B_2, ... with A_i (rank, inputs)
    and B_i (outputs, rank).
    """

    @staticmethod
    def forward(ctx, x: torch.Tensor, kept: torch.Tensor, sides: _Sides, *adapters: torch.Tensor):
        narrow = copies.joined(adapters[0::2], x.dtype)
        dropped, stays = lora.dropped_of(x, sides.dropout)
        inner = dropped @ narrow.t()
        parts = inner.split([len(one) for one in adapters[0::2]], 1)
        made = [product_with(x, base, sides.unpack).addmm_(part, copies.in_type(wide, x.dtype).t(), alpha=scaling)
                for base, part, wide, scaling in zip(sides.bases, parts, adapters[1::2], sides.scalings, strict=True)]
        ctx.save_for_backward(kept, stays, inner, *adapters)
        ctx.sides = sides
        return tuple(made)

    @staticmethod
    def backward(ctx, *upstream: torch.Tensor):
        kept, stays, inner, *adapters = ctx.saved_tensors
        sides, dtype = ctx.sides, inner.dtype
        narrow = copies.joined(adapters[0::2], dtype)
        ranks = [len(one) for one in adapters[0::2]]
        slopes, wide_slopes = torch.empty_like(inner), []
        scaled = inner * sides.scalings[0] if sides.alike else inner
        for part, slope, wide, scaling, gradient in zip(
                scaled.split(ranks, 1), slopes.split(ranks, 1), adapters[1::2], sides.scalings, upstream, strict=True):
            torch.mm(gradient, copies.in_type(wide, dtype), out=slope)
            wide_slopes.append(lora.slope_of(wide, gradient, part))
            if not sides.alike:
                slope.mul_(scaling)
                wide_slopes[-1].mul_(scaling)
        if sides.alike:
            slopes.mul_(sides.scalings[0])
        x = lora.as_rows(sides.way(kept), inner, narrow)
        narrow_slopes = lora.slope_of(adapters[0], slopes, lora.without(x, stays, sides.dropout)).split(ranks)
        given = None
        if ctx.needs_input_grad[0]:
            given = lora.without(slopes @ narrow, stays, sides.dropout)
            for gradient, base in zip(upstream, sides.bases, strict=True):
                given.addmm_(gradient, weight_of(base, dtype, sides.unpack))
        return given, None, None, *(one for pair in zip(narrow_slopes, wide_slopes, strict=True) for one in pair)
