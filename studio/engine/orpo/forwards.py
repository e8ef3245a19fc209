"""Other code for the forward passes of a model's modules, or another mode of the model, for a while."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

Forwards = Mapping[nn.Module, Callable[..., torch.Tensor]]
"""What is to be called instead, by module."""


@contextmanager
def replaced(forwards: Forwards) -> Iterator[None]:
    """These modules compute by other code meanwhile, and by what they had before afterwards."""
    before = {module: vars(module).get("forward") for module in forwards}
    for module, forward in forwards.items():
        module.forward = forward
    try:
        yield
    finally:
        for module, forward in before.items():
            if forward is None:
                del module.forward
            else:
                module.forward = forward


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model is in evaluation mode meanwhile, and in the mode that it was in afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
