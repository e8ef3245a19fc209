"""What is compared: our packed rows, our padded rows, TRL's trainer, all on one and the same model.

Each contender turns a batch of pairs into a loss and its gradient; none of them takes an optimizer step.
"""

import tempfile
import time
from collections.abc import Callable
from statistics import median

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.modeling_layers import GradientCheckpointingLayer

from studio.engine.orpo import memory, packing
from studio.engine.orpo.scoring import Scorer
from studio.engine.orpo.trainer import TOKENS_AT_ONCE
from studio.engine.tokens import Encoded
from tests.reference import reference_step

BETA = 0.1
PACKED, PADDED, TRL = "ours, packed", "ours, padded", "TRL"


def model_of(vocabulary: int, layers: int = 10, **shape) -> torch.nn.Module:
    """A Llama of the shape of a 135M-parameter model with fewer layers, float32, LoRA of rank 16 on all linear layers."""
    torch.manual_seed(0)
    base = LlamaForCausalLM(LlamaConfig(**{
        "vocab_size": vocabulary, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": layers, "num_attention_heads": 9,
        "num_key_value_heads": 3, "max_position_embeddings": 4096, "tie_word_embeddings": True, "pad_token_id": 0} | shape))
    tuned = get_peft_model(base, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:  # zero would leave half the gradients zero
            torch.nn.init.normal_(weight, std=0.01)
    return tuned.train()


def contenders(model: torch.nn.Module, example: list[Encoded]) -> dict[str, Callable[[list[Encoded]], torch.Tensor]]:
    """Each contender by name: takes pairs, leaves gradients on the model, returns the loss."""
    packed, padded = (Scorer(model, filler=0) for _ in range(2))
    assert packed.choose(example).packed, packed.reason
    return {PACKED: lambda pairs: _ours(packed, pairs), PADDED: lambda pairs: _ours(padded, pairs),
            TRL: reference_step(model, BETA, tempfile.mkdtemp())}


def recomputing(model: torch.nn.Module, running: dict[str, Callable]) -> dict[str, Callable]:
    """The contenders with gradient checkpointing on, each in its own way: ours keeps the last layer, the others none."""
    memory.recompute(model.get_base_model(), model.config.num_hidden_layers)
    layers = [layer for layer in model.modules() if isinstance(layer, GradientCheckpointingLayer)]

    def with_layers(who: str, step: Callable) -> Callable:
        def taken(pairs: list[Encoded]) -> torch.Tensor:
            layers[-1].gradient_checkpointing = who not in (PACKED, PADDED)
            return step(pairs)

        return taken

    return {who: with_layers(who, step) for who, step in running.items()}


def _ours(scorer: Scorer, pairs: list[Encoded]) -> torch.Tensor:
    """One micro-batch of the reference's, in as many passes as a run would take, its metrics included."""
    total, metrics = 0.0, 0.0
    with scorer.attending():
        for batch in scorer.batches(packing.weigh(pairs, len(pairs)), TOKENS_AT_ONCE[scorer.model.device.type]):
            scores, _ = scorer.score(batch)
            loss = scores.loss(BETA, batch.shares)
            loss.backward()
            total, metrics = total + loss.detach(), metrics + scores.metrics(BETA, batch.shares)
    metrics.tolist()
    return total


def gradient_of(model: torch.nn.Module) -> torch.Tensor:
    """All gradients in one row, taken off the model."""
    row = torch.cat([weight.grad.flatten().float() for weight in model.parameters() if weight.grad is not None])
    model.zero_grad(set_to_none=True)
    return row


def useful_flops(model: torch.nn.Module, pairs: list[Encoded], recomputed: bool) -> float:
    """What the mathematics of a step needs in products: prompts once, the head for scored rows only.

    A frozen weight takes 2 FLOP a token forward and 2 back, an adapter's 2 and 4, attention's two products likewise;
    recomputing layers adds their forward once more, the last one's excepted.
    """
    config, adapted = model.get_base_model().config, sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    width = config.hidden_size
    layer = width * (2 * width + 2 * width * config.num_key_value_heads // config.num_attention_heads + 3 * config.intermediate_size)
    again = 2 * (1 - 1 / config.num_hidden_layers) if recomputed else 0
    flops = 0.0
    for pair in pairs:
        common, chosen = packing.shared(pair), len(pair.chosen)
        branch = len(pair.rejected) - common
        seen = chosen**2 / 2 + branch * (common + branch / 2)
        flops += (chosen + branch) * (config.num_hidden_layers * layer * (4 + again) + adapted * (6 + again))
        flops += config.num_hidden_layers * 2 * width * seen * (6 + again)
        flops += (chosen - 1 + branch) * config.vocab_size * width * 4
    return flops


def matrix_rate(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """FLOP/s of a product of two square matrices of that type on this device, the median of six."""
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    taken = []
    for _ in range(8):
        _wait(device)
        began = time.perf_counter()
        left @ right
        _wait(device)
        taken.append(time.perf_counter() - began)
    return 2 * size**3 / median(taken[2:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
