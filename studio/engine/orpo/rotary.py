"""Rotary position embeddings by other code than a model's own, where it gives the same.

Transformers' families each have a function of one name in the module of their layers. It is replaced there for as long as a run
computes, and only for calls that it was compared on: whole heads, angles of the same width.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

import torch
from torch import nn

from studio.engine.orpo.arithmetic import Rotary

NAME = "apply_rotary_pos_emb"
SAME = 1e-5
"""Largest deviation from a model's own function in float32, relative to the norm of its result."""
WIDTH, TOKENS = 32, 5


def functions(causal: nn.Module) -> dict[ModuleType, Callable]:
    """The functions of the modules in which the model's layers are written."""
    homes = {sys.modules.get(type(module).__module__) for module in causal.modules()} - {None}  # a class made at run time may have none
    return {home: getattr(home, NAME) for home in homes if callable(getattr(home, NAME, None))}


class Rotation:
    """Which of a model's functions are replaced by `rotary`; none where it is None."""

    def __init__(self, causal: nn.Module, rotary: Rotary | None):
        self.rotary = rotary
        device = next(causal.parameters()).device
        self.own = {} if rotary is None else {home: own for home, own in functions(causal).items() if is_same(own, rotary, device)}

    @contextmanager
    def replaced(self) -> Iterator[None]:
        """Context in which the model rotates by our code."""
        for home, own in self.own.items():
            setattr(home, NAME, _guarded(own, self.rotary))
        try:
            yield
        finally:
            for home, own in self.own.items():
                setattr(home, NAME, own)


def is_same(own: Callable, rotary: Rotary, device: torch.device) -> bool:
    """Whether both give the same of random heads and angles."""
    generator = torch.Generator().manual_seed(0)
    queries, keys = (torch.randn(1, heads, TOKENS, WIDTH, generator=generator).to(device) for heads in (4, 2))
    angles = torch.randn(1, TOKENS, WIDTH // 2, generator=generator).repeat(1, 1, 2).to(device)
    try:
        both = [call(queries, keys, angles.cos(), angles.sin()) for call in (own, rotary)]
        return all(one.shape == other.shape and bool((one - other).norm() <= SAME * one.norm()) for one, other in zip(*both, strict=True))
    except torch.OutOfMemoryError:
        raise
    except Exception:  # a family's function may want other inputs
        return False


def _guarded(own: Callable, rotary: Rotary) -> Callable:
    """Our function where it was compared, the model's own for any other call."""
    def rotate(queries: torch.Tensor, keys: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *inputs, **options):
        heads = queries.ndim == keys.ndim == 4 and queries.shape[-1] == keys.shape[-1] and queries.shape[-1] % 2 == 0
        angles = heads and cos.shape == sin.shape and cos.shape[-2:] == (queries.shape[2], queries.shape[3]) and cos.ndim == 3
        if inputs or options or not angles or cos.dtype != queries.dtype:
            return own(queries, keys, cos, sin, *inputs, **options)
        return rotary(queries, keys, cos, sin)

    return rotate
