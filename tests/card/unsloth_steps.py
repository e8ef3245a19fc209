"""Unsloth's ORPO steps in a process of its own: python -m tests.card.unsloth_steps FOLDER bf16|nf4 OUT, on a CUDA card.

FOLDER holds a model, its tokenizer and an adapter's weights, as `python -m tests.card save` writes them. Adds a finding to
OUT/results.jsonl for each set of lengths, with checkpointing (Unsloth's own) and without; where Unsloth cannot run, one with the reason.
"""

import sys
import tempfile
from itertools import islice
from pathlib import Path

ADAPTER = "contenders-adapter.safetensors"
LONGEST = 4096
WARM, TIMED = 1, 3


def main(folder: str, base: str, out: str) -> None:
    try:
        import unsloth  # first of all: it rewrites transformers, peft and trl as they are imported
    except Exception as error:  # a rival that cannot run is a finding, not the end of the benchmark
        unsloth, why = None, error
    from tests.card.findings import Say

    say = Say(Path(out))
    if unsloth is None:
        say("Unsloth", base=base, failed=f"it cannot be imported: {type(why).__name__}: {why}"[:500])
        return
    for checkpointing in ("unsloth", False):
        with say.tried("Unsloth, its model", base=base, checkpointing=checkpointing):
            say_sets(say, tuned(unsloth.FastLanguageModel, folder, base, checkpointing), base, bool(checkpointing))


def tuned(loader, folder: str, base: str, checkpointing: str | bool):
    """The model as Unsloth loads it, with the other contenders' adapter."""
    import torch
    from safetensors.torch import load_file

    model, _ = loader.from_pretrained(folder, max_seq_length=LONGEST, dtype=torch.bfloat16, load_in_4bit=base == "nf4", local_files_only=True)
    model = loader.get_peft_model(model, r=16, lora_alpha=32, lora_dropout=0, bias="none", use_gradient_checkpointing=checkpointing,
                                  target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])
    known = load_file(Path(folder) / ADAPTER, device="cuda")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                weight.copy_(known[name])
    return model.train()


def say_sets(say, model, base: str, checkpointing: bool) -> None:
    """A finding for each set: seconds of a step, peak memory in bytes, the first loss."""
    import torch

    from tests.benchmarks.contenders import BETA
    from tests.benchmarks.lengths import PAIRS, batches
    from tests.card.contenders import once
    from tests.card.models import VOCABULARY
    from tests.reference import reference_step

    step = reference_step(model, BETA, tempfile.mkdtemp(), bf16=True, gradient_checkpointing=checkpointing)
    for name in PAIRS:
        found = [once(step, batch, model, torch.device("cuda")) for batch in islice(batches(name, VOCABULARY, seed=1), WARM + TIMED)]
        seconds, peaks, losses, failed = zip(*found, strict=True)
        say("Unsloth", base=base, set=name, recomputed=checkpointing, seconds=seconds[WARM:], peak=max(peaks), loss=losses[0],
            failed=next(filter(None, failed), ""))


if __name__ == "__main__":
    main(*sys.argv[1:])
