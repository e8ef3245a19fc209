"""The elementwise arithmetic of a pass, which has two implementations: torch's operators here, Triton's in `triton_kernels`.

Gated products, RMS norms, rotary position embeddings, the softmax of a tile of logits, and 4-bit weights unpacked. Modules that
need one are handed an `Arithmetic`; `trial` decides at the start of a run which implementation of each a card computes with.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn
from torch.linalg import vecdot, vector_norm
from torch.nn.functional import gelu, rms_norm, silu

if TYPE_CHECKING:
    from studio.engine.orpo.head import Frozen

Norm = Callable[[torch.Tensor, float, torch.Tensor], torch.Tensor]
Unpack = Callable[[nn.Module], torch.Tensor]
Rotary = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


GatedGradients = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]
"""By gate, by up, and the product if it was asked for."""


class Gated(NamedTuple):
    """activation(gate) * up and its gradients; the activation is "silu", or "gelu" by its tanh approximation.

    `forward(gate, up, kind)` gives the product. `backward(upstream, gate, up, kind, again)` gives the gradients of gate and up, and
    with `again` the product once more; `upstream` may then be overwritten.
    """

    forward: Callable[[torch.Tensor, torch.Tensor, str], torch.Tensor]
    backward: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, str, bool], GatedGradients]


@dataclass(frozen=True)
class Sums:
    """What a softmax over a vocabulary keeps from tile to tile, (rows,) in float32 each (Milakov & Gimelshein, arXiv 1805.02867)."""

    highest: torch.Tensor
    total: torch.Tensor
    """The sum of exp(logit - highest)."""
    at_target: torch.Tensor
    shrink: torch.Tensor
    """exp(highest before the last tile - highest)."""

    @classmethod
    def of(cls, rows: int, device: torch.device) -> "Sums":
        """The sums before the first tile."""
        highest = torch.full((rows,), torch.finfo(torch.float32).min, dtype=torch.float32, device=device)
        return cls(highest, *torch.zeros(3, rows, dtype=torch.float32, device=device))


@dataclass(frozen=True)
class Tile:
    """A tile of logits to be added to the sums."""

    products: torch.Tensor
    """Hidden states times the weights of the tile's words, (rows, words) in float32; may be overwritten."""
    targets: torch.Tensor
    """(rows,), of the whole vocabulary."""
    first: int
    """The first word of the tile."""
    sums: Sums
    head: "Frozen"
    type: torch.dtype
    """In which the numerators are wanted."""
    wanted: bool
    """Whether they are wanted at all: without a gradient the sums are enough."""


@dataclass(frozen=True)
class Arithmetic:
    """One implementation of each part; a part is replaced by itself."""

    gated: Gated
    norm: Norm
    """`norm(scale, eps, x)`: the root mean square norm of x, (..., width), in its type."""
    rotary: Rotary | None
    """`rotary(queries, keys, cos, sin)` in place of a model's own; None where the model's own is used."""
    tile: Callable[[Tile], torch.Tensor]
    """Brings the sums up to date and gives exp(logit - highest), by the derivative of the head's cap, (rows, words) in `type`."""
    add_product: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]
    """`add_product(total, left, right)`: total += left @ right with float32 sums, of factors of one type."""
    unpack: Unpack
    """The weight of a 4-bit layer of bitsandbytes, (outputs, inputs), in the type that it was quantized from."""


# --- in torch's operators ---------------------------------------------------------------------------------------------


def _activated(gate: torch.Tensor, kind: str) -> torch.Tensor:
    return silu(gate) if kind == "silu" else gelu(gate, approximate="tanh")


def _gated(gate: torch.Tensor, up: torch.Tensor, kind: str) -> torch.Tensor:
    return _activated(gate, kind).mul_(up)


def _gated_backward(upstream: torch.Tensor, gate: torch.Tensor, up: torch.Tensor, kind: str, again: bool) -> GatedGradients:
    activated = _activated(gate, kind)
    product = activated * up if again else None
    by_up, by_gate = activated.mul_(upstream), upstream.mul_(up) if again else upstream * up
    # Over its own input: on a CPU, memory that is new costs as much as filling it.
    if kind == "silu":
        torch.ops.aten.silu_backward.grad_input(by_gate, gate, grad_input=by_gate)
    else:
        torch.ops.aten.gelu_backward.grad_input(by_gate, gate, approximate="tanh", grad_input=by_gate)
    return by_gate, by_up, product


def norm(scale: torch.Tensor, eps: float, x: torch.Tensor) -> torch.Tensor:
    """The root mean square norm of x (arXiv 1910.07467), (..., width), in its type: torch's kernel where it has one for these types."""
    if x.is_cuda and scale.dtype == x.dtype:
        with torch.autocast("cuda", enabled=False):  # it would keep the input in 32 bits after all
            return rms_norm(x, scale.shape, scale, eps)
    return _Norm.apply(x, scale, eps)


class _Norm(torch.autograd.Function):
    """x / sqrt(mean(x^2) + eps) * scale over the last dimension, in float32, returned in the type of x, which is all that is kept."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, scale: torch.Tensor, eps: float) -> torch.Tensor:
        wide = x.float()
        inverse = vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, inverse, scale)
        return (wide * inverse).mul_(scale).to(x.dtype)

    @staticmethod
    def backward(ctx, upstream: torch.Tensor):
        x, inverse, scale = ctx.saved_tensors
        normed, slope = x.float() * inverse, upstream.float() * scale
        along = vecdot(slope, normed).div_(x.shape[-1])[..., None]
        return slope.sub_(normed.mul_(along)).mul_(inverse).to(x.dtype), None, None


def tile(given: Tile) -> torch.Tensor:
    """The numerators of a tile's softmax, written over its products where these are of the type that is wanted."""
    sums, words = given.sums, given.products.shape[1]
    logits = given.head.capped(given.products, slice(given.first, given.first + words))
    place = given.targets - given.first
    found = logits.gather(1, place.clamp(0, words - 1)[:, None])[:, 0]
    sums.at_target.copy_(torch.where((place >= 0) & (place < words), found, sums.at_target))
    higher = torch.maximum(sums.highest, logits.amax(1))
    sums.shrink.copy_(sums.highest).sub_(higher).exp_()
    sums.highest.copy_(higher)
    steepness = given.head.steepness(logits) if given.wanted else None
    numerators = logits.sub_(higher[:, None]).exp_()
    sums.total.mul_(sums.shrink).add_(numerators.sum(1))
    if given.wanted and given.head.softcap is not None:
        numerators *= steepness
    return numerators.to(given.type)


def multiplies_16_bits(factor: torch.Tensor) -> bool:
    """Whether torch.mm accepts 16-bit factors with a float32 output: on CUDA, but not on ROCm, which also reports is_cuda."""
    return factor.is_cuda and not torch.version.hip


def product(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """left @ right summed up and returned in float32, also for 16-bit factors: rounding logits to 16 bits costs digits."""
    if left.dtype == torch.float32:
        return torch.mm(left, right, out=out)
    if not multiplies_16_bits(left):
        return torch.mm(left.float(), right.float(), out=out)
    return torch.mm(left, right, out_dtype=torch.float32, **({} if out is None else {"out": out}))


def add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """total += left @ right, with float32 sums."""
    if right.dtype == torch.float32:
        total.addmm_(left, right)
    else:
        total += product(left, right)


def unpack(base: nn.Module) -> torch.Tensor:
    """The weight of a 4-bit layer, as bitsandbytes unpacks it for its own backward pass."""
    from bitsandbytes.functional import dequantize_4bit  # here, so that a base in 16 bits needs no bitsandbytes

    return dequantize_4bit(base.weight.view(-1, 1), base.weight.quant_state)


PLAIN = Arithmetic(Gated(_gated, _gated_backward), norm, None, tile, add_product, unpack)
"""All in torch's operators, rotary positions as the model's own code has them."""
