"""Whole training steps on a CUDA card: ours against TRL, and against TRL with Liger's fused loss where that is installed.

    python -m tests.benchmarks.gpu [--shape 8b|1b] [--base bf16|nf4] [--out FOLDER]

Weights are random, so nothing is downloaded. Needs torch 2.11 or newer, transformers 5.17 or newer, peft and trl, and for
nf4 bitsandbytes; from a folder of wheels they come with PYTHONPATH. Prints a table and writes FOLDER/gpu-SHAPE-BASE.json.
"""

import argparse
import importlib.util
import json
import math
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from statistics import median

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from studio.engine.orpo import memory, packing
from studio.engine.orpo.scoring import Scorer
from studio.engine.orpo.trainer import TOKENS_AT_ONCE
from tests.benchmarks.contenders import BETA, PACKED, PADDED, TRL, gradient_of, matrix_rate, useful_flops
from tests.benchmarks.lengths import MEANS, SETS, batches
from tests.reference import reference_step

LIGER = "TRL, Liger's loss"
SHAPES = {
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
           "tie_word_embeddings": True},
    "toy": {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2},
}
VOCABULARY = 128_256
WARM, TIMED = 1, 3
Step = Callable[[list], torch.Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description="Time ORPO steps on a CUDA card.")
    parser.add_argument("--shape", choices=SHAPES, default="8b")
    parser.add_argument("--base", choices=("bf16", "nf4"), default="bf16")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu only shows that the script runs")
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("There is no CUDA card that torch can use.")
    device = torch.device(asked.device)
    result = {"machine": machine(device), "shape": asked.shape, "base": asked.base, "exactness": exactness(device),
              "matrix_rate": matrix_rate(device, torch.bfloat16, 8192 if device.type == "cuda" else 512)}
    print(json.dumps(result), flush=True)
    result["steps"] = []
    for checkpointing in (False, True):
        for name in SETS:
            row = compare(name, asked, device, checkpointing, result["matrix_rate"])
            result["steps"].append(row)
            print(json.dumps(row), flush=True)
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / f"gpu-{asked.shape}-{asked.base}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


# --- the model -------------------------------------------------------------------------------------------------------


def model_of(shape: str, base: str, device: torch.device, dtype: torch.dtype = torch.bfloat16) -> torch.nn.Module:
    """A Llama of that shape with random weights and an adapter of rank 16 that already says something."""
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=8192, pad_token_id=0, rope_theta=500_000.0, **SHAPES[shape])
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    if base == "nf4":
        _quantize(model, device)
    tuned = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.01)
    return tuned.train()


def _quantize(model: torch.nn.Module, device: torch.device) -> None:
    """Every linear layer but the head in NF4 with double quantization, one after the other."""
    import bitsandbytes as bnb

    for owner in list(model.modules()):
        for name, layer in list(owner.named_children()):
            if isinstance(layer, torch.nn.Linear) and name != "lm_head":
                small = bnb.nn.Linear4bit(layer.in_features, layer.out_features, bias=False, compute_dtype=torch.bfloat16,
                                          compress_statistics=True, quant_type="nf4")
                small.weight = bnb.nn.Params4bit(layer.weight.data.cpu(), requires_grad=False, compress_statistics=True, quant_type="nf4")
                setattr(owner, name, small.to(device))
    model.is_loaded_in_4bit = True


# --- the contenders --------------------------------------------------------------------------------------------------


def contenders(model: torch.nn.Module, example: list, device: torch.device) -> dict[str, Step]:
    """Each contender by name: takes the pairs of an optimizer step, leaves gradients on the model, returns the loss."""
    packed, padded = Scorer(model, filler=0).choose(example), Scorer(model, filler=0)
    found = {PADDED: lambda pairs: ours(padded, pairs),
             TRL: reference_step(model, BETA, tempfile.mkdtemp(), bf16=next(model.parameters()).dtype == torch.bfloat16)}
    if packed.packed:
        found = {PACKED: lambda pairs: ours(packed, pairs)} | found
    if importlib.util.find_spec("liger_kernel") and device.type == "cuda":
        found[LIGER] = liger_step(model)
    return found


def ours(scorer: Scorer, pairs: list) -> torch.Tensor:
    """As a run does it: passes of as many tokens as keep the card busy, metrics kept on the card."""
    total, metrics = 0.0, 0.0
    with scorer.attending():
        for batch in scorer.batches(packing.weigh(pairs, len(pairs)), TOKENS_AT_ONCE[scorer.model.device.type]):
            with _autocast(scorer.model):
                scores, _ = scorer.score(batch)
                loss = scores.loss(BETA, batch.shares)
            loss.backward()
            total, metrics = total + loss.detach(), metrics + scores.metrics(BETA, batch.shares)
    return total


def liger_step(model: torch.nn.Module) -> Step:
    """TRL's padded rows with Liger's chunked head and loss, NLL over the same tokens."""
    from liger_kernel.chunked_loss import LigerFusedLinearORPOLoss

    fused, causal = LigerFusedLinearORPOLoss(ignore_index=-100, beta=BETA, compute_nll_loss=True, compiled=True), model.get_base_model()

    def step(pairs: list) -> torch.Tensor:
        batch = packing.pad([packing.Weighted(pair, 1.0, 1.0) for pair in pairs], 0).to(model.device)
        ids, mask = (torch.cat([rows[0::2], rows[1::2]]) for rows in (batch.ids, batch.mask))  # chosen above, rejected below
        whole = torch.where(mask == 1, ids, -100)
        answers = whole.clone()
        for row, pair in enumerate(pairs + pairs):
            answers[row, : pair.prompt] = -100
        with _autocast(model):
            hidden = causal.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            loss, _ = fused(causal.lm_head.weight, hidden[:, :-1], answers[:, 1:], nll_target=whole[:, 1:])
        loss.backward()
        return loss.detach()

    return step


def _autocast(model: torch.nn.Module):
    half = model.get_input_embeddings().weight.dtype == torch.bfloat16
    return torch.autocast(model.device.type, torch.bfloat16) if half else nullcontext()


# --- measuring -------------------------------------------------------------------------------------------------------


def compare(name: str, asked: argparse.Namespace, device: torch.device, checkpointing: bool, rate: float) -> dict:
    """Pairs/s, tokens/s, peak memory and share of the matrix rate of each contender, interleaved."""
    model = model_of(asked.shape, asked.base, device)
    scale = 1.0 if device.type == "cuda" else 0.05
    first, *rest = islice(batches(name, VOCABULARY, seed=1, scale=scale), WARM + TIMED)
    running = contenders(model, first, device)
    if checkpointing:
        memory.recompute(model.get_base_model(), 1)
    seconds, peaks, failed = {who: [] for who in running}, {}, {}
    for turn, batch in enumerate([first, *rest]):
        for who, step in running.items():
            if who in failed:
                continue
            try:
                taken, peaks[who] = timed(step, model, batch, device)
            except torch.OutOfMemoryError:
                failed[who] = "out of memory"
                model.zero_grad(set_to_none=True)
                torch.cuda.empty_cache()
                continue
            if turn >= WARM:
                seconds[who].append(taken)
    middle = {who: median(taken) for who, taken in seconds.items() if taken}
    tokens = median(sum(len(pair.chosen) + len(pair.rejected) for pair in batch) for batch in rest)
    flops = median(useful_flops(model, batch, checkpointing) for batch in rest)
    return {"set": name, "pairs": SETS[name], "lengths": MEANS[name], "checkpointing": checkpointing, "failed": failed,
            "pairs_per_second": {who: SETS[name] / taken for who, taken in middle.items()},
            "tokens_per_second": {who: tokens / taken for who, taken in middle.items()},
            "peak_bytes": peaks, "share_of_matrix_rate": {who: flops / taken / rate for who, taken in middle.items()},
            "times_trl": {who: middle[TRL] / taken for who, taken in middle.items()} if TRL in middle else {}}


def timed(step: Step, model: torch.nn.Module, batch: list, device: torch.device) -> tuple[float, int]:
    """Seconds and peak bytes of one step."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    began = time.perf_counter()
    step(batch)
    if cuda:
        torch.cuda.synchronize()
    taken = time.perf_counter() - began
    assert gradient_of(model).norm() > 0
    return taken, torch.cuda.max_memory_allocated() if cuda else 0


def exactness(device: torch.device) -> dict:
    """Errors of loss and gradient to float32, ours and TRL's, on a small model: the gate of every bf16 figure."""
    scale = 1.0 if device.type == "cuda" else 0.1
    pairs = next(batches("fixed", VOCABULARY, seed=5, scale=scale))
    exact = model_of("toy", "bf16", device, torch.float32)
    loss = reference_step(exact, BETA, tempfile.mkdtemp())(pairs).item()
    gradient = gradient_of(exact)
    half = model_of("toy", "bf16", device)
    for one, other in zip(half.parameters(), exact.parameters(), strict=True):
        one.data.copy_(other.data)
    errors = {}
    for who, step in contenders(half, pairs, device).items():
        said = step(pairs).item()
        errors[who] = {"loss": abs(said - loss), "gradient": ((gradient_of(half) - gradient).norm() / gradient.norm()).item()}
    for who in {PACKED, PADDED} & set(errors):
        if not all(errors[who][part] <= max(1.1 * errors[TRL][part], 1e-4) and math.isfinite(errors[who][part]) for part in ("loss", "gradient")):
            raise SystemExit(f"{who} is less exact than TRL: {errors}. No time was taken.")
    return errors


def machine(device: torch.device) -> dict:
    """What the figures were measured on."""
    found = {}
    for name in ("torch", "transformers", "peft", "trl", "bitsandbytes", "liger_kernel", "unsloth"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return {"device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu", "versions": found}


if __name__ == "__main__":
    main()
