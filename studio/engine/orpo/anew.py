"""A tensor that is made anew on the way back instead of being kept, from one that is kept anyway.

A norm keeps its input. What it gives is wanted once more on the way back, by the adapters of the layers that read it, and
costs one pass over memory to make again: it says of what and how it was made, and they keep that.
"""

from collections.abc import Callable

import torch

Way = Callable[[torch.Tensor], torch.Tensor]


def remembering(way: Way) -> Way:
    """The same way, whose results remember what they were made of and how."""
    def made(kept: torch.Tensor) -> torch.Tensor:
        result = way(kept)
        result.made_of = kept.detach(), way
        return result

    return made


def source_of(x: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, Way]:
    """What to keep instead of `rows`, which are x in another shape or type, and how to make x of it: rows if x remembers nothing."""
    return getattr(x, "made_of", None) or (rows.detach(), _as_it_is)


def _as_it_is(kept: torch.Tensor) -> torch.Tensor:
    return kept
