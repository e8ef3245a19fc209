"""Whole training steps on a CUDA card: ours against TRL, TRL with Liger's fused loss, and Unsloth, the latter two where installed.

    python -m tests.benchmarks.gpu [--shape 8b|1b] [--base bf16|nf4] [--out FOLDER]

Weights are random, so nothing is downloaded. Needs torch 2.11 or newer, transformers 5.17 or newer, peft, pydantic, datasets and
trl, and for nf4 bitsandbytes; from a folder of wheels they come with PYTHONPATH. Prints a table, says which targets are met, and
writes FOLDER/gpu-SHAPE-BASE.json. Unsloth rewrites what it is imported beside, so it computes in a process of its own
(tests/benchmarks/unsloth_steps.py).
"""

import argparse
import importlib.util
import json
import math
import os
import subprocess
import sys
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
from safetensors.torch import save_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from studio.engine.orpo import packing
from studio.engine.orpo.scoring import Scorer
from studio.engine.orpo.trainer import TOKENS_AT_ONCE
from studio.practice import MODEL
from tests.benchmarks.contenders import BETA, PACKED, PADDED, TRL, gradient_of, matrix_rate, recomputing, useful_flops
from tests.benchmarks.lengths import FULL, MEANS, PAIRS, batches
from tests.benchmarks.unsloth_steps import ADAPTER
from tests.reference import reference_step

LIGER, UNSLOTH = "TRL, Liger's loss", "Unsloth"
SAME_LOSS = 0.2
"""How far a rival's first loss may be from ours for it to count as the same work: logits rounded to 16 bits take TRL's 0.13 off."""
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
        for name in PAIRS:
            row = compare(name, asked, device, checkpointing, result["matrix_rate"])
            result["steps"].append(row)
            print(json.dumps(row), flush=True)
    if importlib.util.find_spec("unsloth") and device.type == "cuda":
        add_unsloth(result, asked)
    print("\n".join([*table(result["steps"]), *verdicts(result)]))
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / f"gpu-{asked.shape}-{asked.base}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


# --- what came out ---------------------------------------------------------------------------------------------------


def table(rows: list[dict]) -> list[str]:
    """The figures as lines of text: pairs/s, GB and share of the matrix rate of each contender."""
    lines = [f"{'lengths, pairs':18} {'checkpointing':13}  contender: pairs/s, peak GB, share of the matrix rate"]
    for row in rows:
        told = [f"{who}: {speed:.2f}, {row['peak_bytes'][who] / 1e9:.1f}, {row['share_of_matrix_rate'][who]:.0%}"
                for who, speed in row["pairs_per_second"].items()]
        told += [f"{who}: {why}" for who, why in row["failed"].items()]
        lines.append(f"{row['set'] + ', ' + str(row['pairs']):18} {'full' if row['checkpointing'] else 'none':13}  " + "; ".join(told))
    return lines


def verdicts(result: dict) -> list[str]:
    """Each target with what was measured. Every contender is taken at its faster setting of checkpointing."""
    rows = result["steps"]

    def best(name: str, who: str, figure: str = "pairs_per_second") -> float:
        return max((row[figure].get(who, 0.0) for row in rows if row["set"] == name), default=0.0)

    ours, trl = best("log-normal", PACKED), best("log-normal", TRL)
    told = [f"At real lengths {ours / trl:.1f} times TRL, each at its faster setting (aim 2)." if trl
            else "TRL fits the memory at neither setting, at real lengths."]
    if result["shape"] == "8b":
        share = max(best(name, PACKED, "share_of_matrix_rate") for name in PAIRS)
        told.append(f"{share:.0%} of the measured matrix rate (aim 50 %).")
        if result["base"] == "nf4":
            peaks = [row["peak_bytes"][PACKED] for row in rows if row["set"] == FULL and PACKED in row["peak_bytes"]]
            told.append(f"Two pairs of 1,024: {min(peaks) / 1e9:.1f} GB (aim 11)." if peaks else "Two pairs of 1,024 do not fit.")
    rivals = {who for row in rows for who in row["pairs_per_second"]} - {PACKED, PADDED}
    for name in PAIRS:
        told += [f"{who} is faster at {name}: {best(name, who):.2f} against {best(name, PACKED):.2f} pairs/s."
                 for who in sorted(rivals) if best(name, who) > max(best(name, PACKED), best(name, PADDED))]
    return told


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


def add_unsloth(result: dict, asked: argparse.Namespace) -> None:
    """Unsloth's figures into the rows: the same weights, read from a folder, and the same pairs."""
    with tempfile.TemporaryDirectory() as folder:
        model = model_of(asked.shape, "bf16", torch.device("cuda"))
        model.get_base_model().config.architectures = ["LlamaForCausalLM"]
        save_file({name: weight.detach().contiguous() for name, weight in model.named_parameters() if weight.requires_grad},
                  Path(folder) / ADAPTER)
        model.unload().save_pretrained(folder)
        AutoTokenizer.from_pretrained(MODEL).save_pretrained(folder)
        del model
        torch.cuda.empty_cache()
        call = [sys.executable, "-m", "tests.benchmarks.unsloth_steps", folder, asked.base]
        ended = subprocess.run(call, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1", "UNSLOTH_DISABLE_STATISTICS": "1"})
    said = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith('{"set"')]
    for row in result["steps"]:
        own = next((one for one in said if (one["set"], one["checkpointing"]) == (row["set"], row["checkpointing"])), None)
        off = abs(own["loss"] - row["first_loss"][PACKED]) if own and "loss" in own else 0.0
        if own is None or "failed" in own or off > SAME_LOSS:
            lines = ended.stderr.strip().splitlines() or ["it said nothing"]
            row["failed"][UNSLOTH] = f"its loss is {off:.3f} off ours" if off > SAME_LOSS else (own or {}).get("failed", lines[-1])
            continue
        pairs, taken = PAIRS[row["set"]], median(own["seconds"])
        row["pairs_per_second"][UNSLOTH], row["peak_bytes"][UNSLOTH] = pairs / taken, own["peak"]
        row["share_of_matrix_rate"][UNSLOTH] = row["useful_flops"] / taken / result["matrix_rate"]
        if TRL in row["pairs_per_second"]:
            row["times_trl"][UNSLOTH] = pairs / taken / row["pairs_per_second"][TRL]


# --- measuring -------------------------------------------------------------------------------------------------------


def compare(name: str, asked: argparse.Namespace, device: torch.device, checkpointing: bool, rate: float) -> dict:
    """Pairs/s, tokens/s, peak memory and share of the matrix rate of each contender, interleaved."""
    model = model_of(asked.shape, asked.base, device)
    scale = 1.0 if device.type == "cuda" else 0.05
    first, *rest = islice(batches(name, VOCABULARY, seed=1, scale=scale), WARM + TIMED)
    running = contenders(model, first, device)
    if checkpointing:
        running = recomputing(model, running)
    seconds, peaks, failed, losses = {who: [] for who in running}, {}, {}, {}
    for turn, batch in enumerate([first, *rest]):
        for who, step in running.items():
            if who in failed:
                continue
            try:
                taken, peak, loss = timed(step, model, batch, device)
            except torch.OutOfMemoryError:
                failed[who] = "out of memory"
                model.zero_grad(set_to_none=True)
                torch.cuda.empty_cache()
                continue
            losses.setdefault(who, loss)
            peaks[who] = max(peak, peaks.get(who, 0))
            if turn >= WARM:
                seconds[who].append(taken)
    middle = {who: median(taken) for who, taken in seconds.items() if taken}
    tokens = median(sum(len(pair.chosen) + len(pair.rejected) for pair in batch) for batch in rest)
    flops = median(useful_flops(model, batch, checkpointing) for batch in rest)
    return {"set": name, "pairs": PAIRS[name], "lengths": MEANS[name], "checkpointing": checkpointing, "failed": failed,
            "first_loss": losses, "useful_flops": flops, "pairs_per_second": {who: PAIRS[name] / taken for who, taken in middle.items()},
            "tokens_per_second": {who: tokens / taken for who, taken in middle.items()},
            "peak_bytes": peaks, "share_of_matrix_rate": {who: flops / taken / rate for who, taken in middle.items()},
            "times_trl": {who: middle[TRL] / taken for who, taken in middle.items()} if TRL in middle else {}}


def timed(step: Step, model: torch.nn.Module, batch: list, device: torch.device) -> tuple[float, int, float]:
    """Seconds, peak bytes and loss of one step."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    began = time.perf_counter()
    loss = step(batch)
    if cuda:
        torch.cuda.synchronize()
    taken = time.perf_counter() - began
    assert gradient_of(model).norm() > 0
    return taken, torch.cuda.max_memory_allocated() if cuda else 0, loss.item()


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
