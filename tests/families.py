"""Which model families are packed and which are padded, each proved against separate forward passes.

`python -m tests.families` writes the table to tests/families.md.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from peft.tuners.lora import LoraLayer

from studio.engine.model import add_adapter
from studio.engine.orpo import packing
from studio.engine.orpo.loss import Scores
from studio.engine.orpo.scoring import Scorer
from studio.engine.tokens import Encoded
from studio.settings import Settings
from tests.tiny_models import VOCABULARY, tiny_model

TABLE = Path(__file__).parent / "families.md"
WINDOW = 16
GRADIENT_LIMIT = 5e-6
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}

PACKED = {
    "Llama": ("llama", {}),
    "Mistral, sliding window": ("mistral", {"sliding_window": WINDOW}),
    "Qwen2": ("qwen2", {}),
    "Qwen2, sliding window": ("qwen2", {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 2}),
    "Qwen3": ("qwen3", {}),
    "Gemma 2": ("gemma2", {"sliding_window": WINDOW, "query_pre_attn_scalar": 16}),
    "Gemma 3": ("gemma3_text", {"sliding_window": WINDOW, "query_pre_attn_scalar": 16}),
    "Phi-3": ("phi3", {}),
    "Granite": ("granite", {"logits_scaling": 4.0, "residual_multiplier": 0.5, "embedding_multiplier": 2.0, "attention_multiplier": 0.25}),
    "OLMo 2": ("olmo2", {}),
    "SmolLM3": ("smollm3", {"no_rope_layer_interval": 2}),
    "GPT-NeoX": ("gpt_neox", {}),
    "GPT-2": ("gpt2", {"n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": 512}),
    "Cohere": ("cohere", {"logit_scale": 0.25}),
    "GLM-4": ("glm4", {}),
    "Mixtral": ("mixtral", EXPERTS),
    "Qwen3-MoE": ("qwen3_moe", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "mlp_only_layers": []}),
    "gpt-oss": ("gpt_oss", EXPERTS | {"sliding_window": WINDOW}),
}
PADDED = {
    "Qwen3.5": ("qwen3_5_text", {"layer_types": ["linear_attention", "full_attention"] * 2, "linear_num_key_heads": 2,
                                 "linear_num_value_heads": 2, "linear_key_head_dim": 16, "linear_value_head_dim": 16}),
    "Falcon-H1": ("falcon_h1", {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_chunk_size": 16}),
    "Bloom": ("bloom", {"n_layer": 4, "n_head": 4}),
}
FAMILIES = PACKED | PADDED


def pairs() -> list[Encoded]:
    """Pairs of random tokens: beyond the window and within it, with a shared start of the answers and without."""
    rng = np.random.default_rng(0)

    def text(length: int) -> np.ndarray:
        return rng.integers(3, VOCABULARY, length)

    found = []
    for prompt, chosen, rejected, common in ((30, 25, 40, 0), (5, 12, 3, 0), (20, 9, 30, 6), (1, 6, 8, 2)):
        start, both = text(prompt), text(common)
        found.append(Encoded(prompt, np.concatenate([start, both, text(chosen)]), np.concatenate([start, both, text(rejected)])))
    return found


def with_adapter(family: str, **options) -> torch.nn.Module:
    """A tiny model of the family with an adapter that already says something."""
    model = tiny_model(family, **options)
    tuned = add_adapter(model, Settings.from_form(**{"adapter.rank": 4, "adapter.alpha": 4}))
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return tuned.eval()


def separate(model: torch.nn.Module, weighted: list[packing.Weighted]) -> Scores:
    """The same figures by the shortest code there is: each text alone, all logits."""
    chosen, rejected, nll = [], [], 0.0
    for one in weighted:
        logps = [_logps(model, tokens) for tokens in (one.pair.chosen, one.pair.rejected)]
        first = max(one.pair.prompt, 1) - 1
        chosen.append(logps[0][first:].mean())
        rejected.append(logps[1][first:].mean())
        nll = nll - one.nll * logps[0].sum()
    return Scores(torch.stack(chosen), torch.stack(rejected), nll)


def _logps(model: torch.nn.Module, tokens: np.ndarray) -> torch.Tensor:
    ids = torch.from_numpy(np.array(tokens)).long()[None]
    logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
    return logits.to(max(logits.dtype, torch.float32, key=lambda kind: kind.itemsize)).log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])


@dataclass(frozen=True)
class Deviation:
    """How far a family's scores and gradients are from those of separate passes, the latter relative.

    `rounding` is how far the gradients of separate passes in float32 are from those in float64, where the first two are
    further apart than the limit; else 0.
    """

    scorer: Scorer
    scores: float
    gradient: float
    rounding: float


def deviation(name: str) -> Deviation:
    """Measured on the tiny model of a family."""
    family, options = FAMILIES[name]
    model = with_adapter(family, **options)
    found = pairs()
    scorer = Scorer(model, filler=0).choose(found)
    weighted = packing.weigh(found, len(found))
    batch = scorer.batch(weighted)
    with scorer.attending():
        scores, _ = scorer.score(batch)
        mine = gradients(model, scores.loss(0.1, batch.shares))
    plain = separate(model, weighted)
    theirs = gradients(model, plain.loss(0.1, batch.shares))
    off = max((getattr(scores, part) - getattr(plain, part)).abs().max().item() for part in ("chosen", "rejected", "nll"))
    apart, rounding = _apart(mine, theirs), 0.0
    if apart > GRADIENT_LIMIT:
        rounding = _apart(theirs, gradients(model.double(), separate(model, weighted).loss(0.1, batch.shares.double())))
    return Deviation(scorer, off, apart, rounding)


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return ((one - other).norm() / other.norm()).item()


def table(rows: list[tuple[str, Scorer]]) -> str:
    """The families as Markdown: how each is computed and, for those that are not packed, why."""
    lines = ["| family | rows | why |", "| --- | --- | --- |"]
    for name, scorer in rows:
        why = "equal to separate passes" if scorer.packed else scorer.reason.split(" (by ")[0]
        lines.append(f"| {name} | {'packed' if scorer.packed else 'padded'} | {why} |")
    return "\n".join(lines) + "\n"


def quantize(model):
    """The model with every adapted layer's base in NF4, as bitsandbytes does it while a model is loaded."""
    import bitsandbytes as bnb

    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            plain = layer.base_layer
            small = bnb.nn.Linear4bit(plain.in_features, plain.out_features, bias=plain.bias is not None, compute_dtype=torch.float32, quant_type="nf4")
            small.weight = bnb.nn.Params4bit(plain.weight.data, requires_grad=False, quant_type="nf4")
            small.bias = plain.bias
            small.support_avx512bf16_for_cpu = False
            layer.base_layer = small.to("cpu")
    return model


if __name__ == "__main__":
    measured = {name: deviation(name) for name in FAMILIES}
    TABLE.write_text(table([(name, one.scorer) for name, one in measured.items()]), encoding="utf-8")
    for name, one in measured.items():
        print(f"{name:26} {'packed' if one.scorer.packed else 'padded'}  log-probabilities {one.scores:.0e}  "
              f"gradient {one.gradient:.0e}{f' (float32 itself {one.rounding:.0e})' if one.rounding else ''}  {one.scorer.reason}")
