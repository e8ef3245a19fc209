"""Norms and gated MLPs by code that keeps less for the way back: which modules get it.

A norm spelled out in float32 keeps its whole input in 32 bits; here it is kept as it came. Gated products have a module
of their own. What these replace is tried out first: a module that gives anything else is left as it is.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedModel

from studio.engine.orpo.anew import remembering
from studio.engine.orpo.arithmetic import PLAIN, Arithmetic, Norm
from studio.engine.orpo.forwards import Forwards
from studio.engine.orpo.gated import gated_mlps

SAME = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 1e-2}
"""How far the replacement's output may be from the module's own, relative to its size: one rounding, no more."""

PROBE = 8
"""Rows on which a module is tried."""


def lean(causal: PreTrainedModel, arithmetic: Arithmetic = PLAIN) -> Forwards:
    """Forward passes for the norms and gated MLPs of a frozen base, where they give what the modules' own give."""
    found = {}
    for module in causal.modules():
        for forward in (*_norms(module, arithmetic.norm), *gated_mlps(module, arithmetic)):
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


def scale_of(module: nn.Module) -> torch.Tensor | None:
    """What a frozen root mean square norm multiplies with, or None for any other module."""
    for scale in _scales(module):
        if _is_same(module, partial(PLAIN.norm, scale, _eps(module))):
            return scale
    return None


def _norms(module: nn.Module, norm: Norm) -> list[Callable[..., torch.Tensor]]:
    """The norm of a frozen module that goes by that name, with each scale that it may have."""
    return [remembering(partial(norm, scale, _eps(module))) for scale in _scales(module)]


def _eps(module: nn.Module) -> float | None:
    return getattr(module, "variance_epsilon", getattr(module, "eps", None))


def _scales(module: nn.Module) -> list[torch.Tensor]:
    """What a root mean square norm (arXiv 1910.07467) may multiply with: its weight, or like Gemma's 1 + weight."""
    weight = getattr(module, "weight", None)
    if not type(module).__name__.endswith("RMSNorm") or not isinstance(_eps(module), float) or not isinstance(weight, torch.Tensor):
        return []
    if weight.ndim != 1 or weight.requires_grad:
        return []
    return [weight.detach(), 1 + weight.detach().float()]
