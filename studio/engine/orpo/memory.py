"""How much a pass keeps for its way back, and how small it should be or how many layers be recomputed so that it fits.

Measured, not guessed: one short pair goes through the model, and what autograd keeps of it is counted.
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

ENOUGH = {"cpu": 1024, "cuda": 4096}
"""Tokens of a pass that still keep a card nearly as busy as more would, by the engine's design, not yet by a measurement. On a
CPU what no pass exceeds anyway: a run that is resumed there ends bit for bit the same, so its passes may not go by the free memory."""


@dataclass(frozen=True)
class Kept:
    """What one token leaves behind in a forward pass, in bytes: in all layers together, and at one layer's entry.

    `head` is what the head holds besides while it works, however many tokens there are.
    """

    per_token: float
    entry: int
    layers: int
    head: int = 0

    def needed(self, tokens: int, every: int) -> float:
        """Bytes of a pass of `tokens` with every `every`-th layer recomputed; 0 recomputes none."""
        recomputed = -(-self.layers // every) if every else 0
        kept = self.per_token * tokens * (1 - recomputed / self.layers)
        if recomputed:  # the entries of all recomputed layers, and the whole of the one that is being recomputed
            kept += tokens * (recomputed * self.entry + self.per_token / self.layers)
        return kept + self.head

    def plan(self, tokens: int, least: int, free: int) -> tuple[int, int]:
        """Tokens of a pass and every how many layers one is recomputed, so that passes of at most `tokens` fit into `free` bytes.

        Passes are made smaller first, down to `least`: that costs a few percent where recomputing costs up to a third.
        """
        while tokens > least and self.choose(tokens, free):
            tokens = max(least, tokens // 2)
        return tokens, self.choose(tokens, free)

    def choose(self, tokens: int, free: int) -> int:
        """The least recomputing with which a pass fits into `free` bytes; 1, all layers, if nothing does."""
        for every in (0, *range(self.layers, 0, -1)):
            if self.needed(tokens, every) <= USABLE * free:
                return every
        return 1


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
    return Kept(sum(sizes.values()) / tokens, width, config.num_hidden_layers, scorer.head.working_bytes)


def free_bytes(device: torch.device) -> int:
    """Memory that a pass could take: on the card including what torch holds in reserve, else in RAM."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return psutil.virtual_memory().available


def recompute(causal: PreTrainedModel, every: int) -> None:
    """Recompute every `every`-th layer's inside on the way back instead of keeping it; 0 recomputes none.

    The last layer is kept: the way back begins with it, so that what was spared would be needed at once.
    """
    if not every:
        return
    # One thing by two names: the older is deprecated since transformers 5.20 and the newer unknown to 5.17.
    enable = getattr(causal, "activation_checkpointing_enable", None) or causal.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    causal.disable_input_require_grads()  # only the reentrant kind needs it; here it would cost a gradient nobody uses
    layers = [module for module in causal.modules() if isinstance(module, GradientCheckpointingLayer)]
    for place, layer in enumerate(layers):
        layer.gradient_checkpointing = place % every == 0 and place < len(layers) - 1
