"""Norms and gated MLPs by code that keeps less for the way back: which modules get it.

A norm spelled out in float32 keeps its whole input in 32 bits; here it is kept as it came. Gated products have a module
of their own. What these replace is tried out first: a module that gives anything else is left as it is.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.linalg import vecdot, vector_norm
from torch.nn.functional import rms_norm
from transformers import PreTrainedModel

from studio.engine.orpo.anew import remembering
from studio.engine.orpo.forwards import Forwards
from studio.engine.orpo.gated import gated_mlps

SAME = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 1e-2}
"""How far the replacement's output may be from the module's own, relative to its size: one rounding, no more."""

PROBE = 8
"""Rows on which a module is tried."""


def lean(causal: PreTrainedModel) -> Forwards:
    """Forward passes for the norms and gated MLPs of a frozen base, where they give what the modules' own give."""
    found = {}
    for module in causal.modules():
        for forward in (*_norms(module), *gated_mlps(module)):
            if _is_same(module, forward):
                found[module] = forward
                break
    return found


def _is_same(module: nn.Module, forward: Callable[..., torch.Tensor]) -> bool:
    """Tried on rows of random numbers, nothing dropped. Every module by itself: some of a class may have options of their own."""
    training = module.training
    module.eval()
    try:
        weight = next(weight for weight in module.parameters() if weight.is_floating_point())
        first = getattr(module, "gate_proj", getattr(module, "gate_up_proj", None))
        width = first.in_features if first is not None else len(weight)
        rows = torch.randn(1, PROBE, width, generator=torch.Generator().manual_seed(0)).to(weight)
        with torch.no_grad():
            own, ours = module(rows), forward(rows)
        return own.dtype == ours.dtype and bool((own - ours).float().norm() <= SAME.get(own.dtype, 0) * own.float().norm())
    except torch.OutOfMemoryError:
        raise
    except Exception:  # it wants other inputs, or gives something else than a tensor: not what its names made of it
        return False
    finally:
        module.train(training)


# --- norms ------------------------------------------------------------------------------------------------------------


def _norms(module: nn.Module) -> list[Callable[..., torch.Tensor]]:
    """Root mean square norms (arXiv 1910.07467) for a frozen module that goes by that name; Gemma's scale is 1 + weight."""
    weight = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not type(module).__name__.endswith("RMSNorm") or not isinstance(eps, float) or not isinstance(weight, torch.Tensor):
        return []
    if weight.ndim != 1 or weight.requires_grad:
        return []
    return [remembering(partial(_normed, scale, eps)) for scale in (weight.detach(), 1 + weight.detach().float())]


def _normed(scale: torch.Tensor, eps: float, x: torch.Tensor) -> torch.Tensor:
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
