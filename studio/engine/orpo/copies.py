"""An adapter's weights in the type of the products: one copy for all passes of a step instead of a cast in each.

Products in 16 bits read an adapter that is kept in 32. The copies lie in one buffer in the order in which they are read, so that
weights that are multiplied with together are one matrix without being joined.
"""

from collections.abc import Sequence

import torch
from torch import nn

_ATTRIBUTE = "copies"


class Copies:
    """Copies of these weights, renewed all together before the first product after one has changed."""

    def __init__(self, weights: Sequence[nn.Parameter]):
        self.weights = list(weights)
        self.places = {id(weight): place for place, weight in enumerate(self.weights)}
        self._copies: list[torch.Tensor] = []
        self._versions: list[int] = []
        for weight in self.weights:
            setattr(weight, _ATTRIBUTE, self)

    def has_in_order(self, weights: Sequence[nn.Parameter]) -> bool:
        """Whether all of them have a copy, and these are neighbours."""
        places = [self.places.get(id(weight)) for weight in weights]
        return places[0] is not None and places == list(range(places[0], places[0] + len(places)))

    def outdate(self) -> None:
        """Have the copies renewed: for code that changes weights without torch's knowledge, as optimizers of bitsandbytes do."""
        self._versions = []

    def of(self, weights: Sequence[nn.Parameter], dtype: torch.dtype) -> torch.Tensor:
        """One weight, or neighbours one below the other, in `dtype`."""
        first, last = self.places[id(weights[0])], self.places[id(weights[-1])]
        if not self._versions or self._copies[first].dtype != dtype or any(
                self._versions[place] != self.weights[place]._version for place in range(first, last + 1)):
            self._renew(dtype)
        if first == last:
            return self._copies[first]
        return self._copies[first].as_strided((sum(map(len, weights)), weights[0].shape[1]), self._copies[first].stride())

    @torch.inference_mode(False)  # a buffer made in inference mode could not be written to outside it
    @torch.no_grad()
    def _renew(self, dtype: torch.dtype) -> None:
        if not self._copies or self._copies[0].dtype != dtype:
            sizes = [weight.numel() for weight in self.weights]
            flat = torch.empty(sum(sizes), dtype=dtype, device=self.weights[0].device)
            self._copies = [part.view(weight.shape) for part, weight in zip(flat.split(sizes), self.weights, strict=True)]
        torch._foreach_copy_(self._copies, self.weights)
        self._versions = [weight._version for weight in self.weights]


def outdate(weights: Sequence[nn.Parameter]) -> None:
    """Have the copies of these weights renewed, where they have any."""
    for copies in {getattr(weight, _ATTRIBUTE, None) for weight in weights} - {None}:
        copies.outdate()


def in_type(weight: nn.Parameter, dtype: torch.dtype) -> torch.Tensor:
    """A weight in `dtype`, without a gradient."""
    return joined([weight], dtype)


def joined(weights: Sequence[nn.Parameter], dtype: torch.dtype) -> torch.Tensor:
    """Weights of as many columns, one below the other, in `dtype` and without a gradient."""
    weights_, copies = [weight.detach() for weight in weights], getattr(weights[0], _ATTRIBUTE, None)
    if weights_[0].dtype == dtype:
        return weights_[0] if len(weights_) == 1 else torch.cat(weights_)
    if copies is None or not copies.has_in_order(weights):
        return torch.cat([weight.to(dtype) for weight in weights_])
    return copies.of(weights, dtype)
