"""Activation memory, measured: what autograd saves for the backward pass of one pair. Turns recomputation of layers on and off."""

import psutil
import torch
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from studio.engine.orpo import packing, relief
from studio.engine.orpo.scoring import Scorer
from studio.engine.tokens import Encoded
from studio.passes import FRAGMENTS, Kept


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
    """Recompute the first `count` layers in the backward pass instead of saving their activations, and no others.

    Never the last layer: the backward pass starts there, so recomputing it would save nothing.
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
