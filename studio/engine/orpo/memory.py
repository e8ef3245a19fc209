"""How much a pass keeps for its way back, and how small it should be or how many layers be recomputed so that it fits.

Measured, not guessed: one pair goes through the model, and what autograd keeps of it is counted.
"""

from dataclasses import dataclass

import psutil
import torch
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from studio.engine.orpo import packing, relief
from studio.engine.orpo.scoring import Scorer
from studio.engine.tokens import Encoded

USABLE = 0.8
"""Share of the free memory that a pass may take; the rest is for what is not counted here, such as fragments."""

FRAGMENTS = {"cpu": 4, "cuda": 2}
"""Layers' worth of freed memory that the allocator does not hand out again. Measured on a CPU, assumed on a card."""

ENOUGH = {"cpu": 1024, "cuda": 4096}
"""Tokens of a pass that still keep a card nearly as busy as more would, by the engine's design, not yet by a measurement. On a
CPU what no pass exceeds anyway: a run that is resumed there ends bit for bit the same, so its passes may not go by the free memory."""


@dataclass(frozen=True)
class Kept:
    """What one token leaves behind in a forward pass, in bytes: in all layers together, and at one layer's entry.

    `head` is what the head holds besides while it works, however many tokens there are; `fragments` are layers' worth of memory
    that is freed and not handed out again.
    """

    per_token: float
    entry: int
    layers: int
    head: int = 0
    fragments: int = 0

    def needed(self, tokens: int, recomputed: int) -> float:
        """Bytes of a pass of `tokens` with the first `recomputed` layers recomputed on the way back.

        The most is held where the way back begins: what the other layers keep, and the entries of those that are recomputed.
        When these are, one after another, the others have let go of theirs.
        """
        whole = max(1, self.layers - recomputed) + min(self.fragments, self.layers)
        return tokens * (self.per_token * whole / self.layers + recomputed * self.entry) + self.head

    def plan(self, tokens: int, enough: int, least: int, free: int, settled: int | None = None) -> tuple[int, int]:
        """Tokens of a pass and how many layers are recomputed, so that passes of at most `tokens` fit into `free` bytes.

        Passes are made smaller first, down to `enough`: that costs a few percent where recomputing costs up to a third. Where a pass
        does not fit however many layers are recomputed, or their number is `settled`, passes go down to `least`.
        """
        while tokens > enough and self.needed(tokens, settled or 0) > USABLE * free:
            tokens = max(enough, tokens // 2)
        recomputed = self.choose(tokens, free) if settled is None else settled
        while tokens > least and self.needed(tokens, recomputed) > USABLE * free:
            tokens = max(least, tokens // 2)
        return tokens, recomputed

    def choose(self, tokens: int, free: int) -> int:
        """The least number of recomputed layers with which a pass fits into `free` bytes; all but the last if none does."""
        most = self.layers - 1
        return next((count for count in range(most) if self.needed(tokens, count) <= USABLE * free), most)


def measure(scorer: Scorer, pair: Encoded) -> Kept:
    """What the model keeps of this pair."""
    sizes: dict[int, int] = {}
    own = {weight.untyped_storage().data_ptr() for weight in scorer.model.parameters()}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = scorer.batch(packing.weigh([pair], 1, scorer.scope))
    was_training = scorer.model.training
    scorer.model.train()
    draws = relief.Draws()  # LoRA's dropout draws; the run's own numbers must not depend on this look
    try:
        with scorer.attending(), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            scores, _ = scorer.score(batch)
    finally:
        draws.again()
        scorer.model.train(was_training)
    config = scorer.causal.config.get_text_config()
    tokens, width = batch.ids.numel(), scorer.causal.get_input_embeddings().weight.element_size() * config.hidden_size
    del scores
    fragments = FRAGMENTS.get(scorer.model.device.type, FRAGMENTS["cuda"])
    return Kept(sum(sizes.values()) / tokens, width, config.num_hidden_layers, scorer.head.working_bytes, fragments)


def free_bytes(device: torch.device) -> int:
    """Memory that a pass could take: on the card including what torch holds in reserve, else in RAM."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return psutil.virtual_memory().available


def recompute(causal: PreTrainedModel, count: int) -> None:
    """Recompute the insides of the first `count` layers on the way back instead of keeping them, and of no others.

    The last layer is always kept: the way back begins with it, so that what was spared would be needed at once.
    """
    layers = [module for module in causal.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers:
        layer.gradient_checkpointing = False
    if not count:
        return
    # One thing by two names: the older is deprecated since transformers 5.20 and the newer unknown to 5.17.
    enable = getattr(causal, "activation_checkpointing_enable", None) or causal.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    causal.disable_input_require_grads()  # only the reentrant kind needs it; here it would cost a gradient nobody uses
    for place, layer in enumerate(layers):
        layer.gradient_checkpointing = place < min(count, len(layers) - 1)
