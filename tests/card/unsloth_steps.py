"""Unsloth's ORPO steps in a process of its own: python -m tests.card.unsloth_steps FOLDER bf16|nf4, on a CUDA card.

FOLDER holds a model, its tokenizer and an adapter's weights, as `python -m tests.card save` writes them. Says a line of JSON for
each set of lengths, with checkpointing (Unsloth's own) and without; a set that does not fit the memory says so in its line.
"""

import json
import sys
import tempfile
from itertools import islice
from pathlib import Path

ADAPTER = "contenders-adapter.safetensors"
LONGEST = 4096
WARM, TIMED = 1, 3


def main(folder: str, base: str) -> None:
    import unsloth  # first of all: it rewrites transformers, peft and trl as they are imported

    for checkpointing in ("unsloth", False):
        try:
            model = tuned(unsloth.FastLanguageModel, folder, base, checkpointing)
            say_sets(model, bool(checkpointing))
        except Exception as error:  # a rival that cannot run is a finding, not the end of the benchmark
            print(f"{type(error).__name__}: {error}", file=sys.stderr)


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


def say_sets(model, checkpointing: bool) -> None:
    """A line for each set."""
    import torch

    from tests.benchmarks.contenders import BETA
    from tests.benchmarks.lengths import PAIRS, batches
    from tests.card.contenders import once
    from tests.card.models import VOCABULARY
    from tests.reference import reference_step

    step = reference_step(model, BETA, tempfile.mkdtemp(), bf16=True, gradient_checkpointing=checkpointing)
    for name in PAIRS:
        said = {"set": name, "checkpointing": checkpointing}
        found = [once(step, batch, model, torch.device("cuda")) for batch in islice(batches(name, VOCABULARY, seed=1), WARM + TIMED)]
        seconds, peaks, losses, failed = zip(*found, strict=True)
        said |= {"seconds": seconds[WARM:], "peak": max(peaks), "loss": losses[0], "failed": next(filter(None, failed), "")}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
