"""How a training step is divided into passes: tokens per pass, and how many layers are recomputed.

Planned from the bytes that one token leaves behind, which the trainer measures (`studio.engine.orpo.memory`) and the page
estimates (`studio.fit`). Imports no torch, so both use the same plan.
"""

from dataclasses import dataclass

TOKENS_AT_ONCE = {"cpu": 1024, "cuda": 16384}
"""Tokens per pass that keep the device busy. More only costs memory, except that every pass unpacks a quantized base again."""

ENOUGH = {"cpu": 1024, "cuda": 4096}
"""Tokens per pass that keep the device nearly as busy; a design estimate, not yet measured on a GPU. Equal to TOKENS_AT_ONCE on
a CPU: a resumed run must reproduce the original bit for bit there, so pass size must not depend on free memory."""

USABLE = 0.8
"""Share of free memory that a pass may take; the rest is for what is not counted here."""

FRAGMENTS = {"cpu": 4, "cuda": 2}
"""Freed memory that the allocator does not reuse, as a number of layers' activations. Measured on a CPU, assumed on a GPU."""


@dataclass(frozen=True)
class Kept:
    """What one token leaves behind in a forward pass, in bytes: `per_token` in all layers together, `entry` for a layer's input.

    `head` is the working memory of the LM head, whatever the number of tokens; `fragments` counts layers' activations, see FRAGMENTS.
    """

    per_token: float
    entry: int
    layers: int
    head: int = 0
    fragments: int = 0

    def needed(self, tokens: int, recomputed: int) -> float:
        """Peak bytes of a pass of `tokens` when the first `recomputed` layers are recomputed in the backward pass.

        The peak is at the start of the backward pass: the activations of the other layers and the inputs of the recomputed ones.
        By the time a layer is recomputed, the activations of all later layers have been freed.
        """
        whole = max(1, self.layers - recomputed) + min(self.fragments, self.layers)
        return tokens * (self.per_token * whole / self.layers + recomputed * self.entry) + self.head

    def plan(self, tokens: int, enough: int, least: int, free: float, settled: int | None = None) -> tuple[int, int]:
        """(tokens per pass, number of recomputed layers) such that passes of at most `tokens` fit into `free` bytes.

        Halves the pass first, down to `enough`: that costs a few percent of speed, recomputing up to a third. Then recomputes as few
        layers as fit, or the `settled` number. If a pass still does not fit, halves it further, down to `least`.
        """
        while tokens > enough and not self.fits(tokens, settled or 0, free):
            tokens = max(enough, tokens // 2)
        recomputed = self.choose(tokens, free) if settled is None else settled
        while tokens > least and not self.fits(tokens, recomputed, free):
            tokens = max(least, tokens // 2)
        return tokens, recomputed

    def fits(self, tokens: int, recomputed: int, free: float) -> bool:
        """Whether such a pass fits into `free` bytes."""
        return self.needed(tokens, recomputed) <= USABLE * free

    def choose(self, tokens: int, free: float) -> int:
        """The smallest number of recomputed layers with which a pass fits into `free` bytes; all but the last if none fits."""
        most = self.layers - 1
        return next((count for count in range(most) if self.fits(tokens, count, free)), most)


def settled(gradient_checkpointing: str, layers: int) -> int | None:
    """The number of recomputed layers that a setting fixes; None for "auto", which leaves it to the plan.

    Even "full" keeps the last layer: the backward pass starts there, so recomputing it would save nothing.
    """
    return {"auto": None, "full": layers - 1, "none": 0}[gradient_checkpointing]
