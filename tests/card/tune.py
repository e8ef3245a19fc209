"""What the engine's own numbers should be on this card: tokens of a pass, the head's tile, dropout."""

import math
from dataclasses import replace
from functools import partial
from itertools import islice

import torch

from studio.engine.orpo import head as engine_head
from studio.engine.orpo import trial
from studio.engine.orpo.arithmetic import PLAIN, Arithmetic
from studio.engine.orpo.scoring import Scorer
from tests.benchmarks.lengths import batches
from tests.card.contenders import once, ours
from tests.card.findings import left, timed
from tests.card.models import VOCABULARY, model_of


def tune(asked, say, device) -> None:
    words, scale = (2000, 0.05) if asked.tiny else (VOCABULARY, 1.0)
    with say.tried("the head alone, by size of its tile") as found:
        head_alone(found, words, 128 if asked.tiny else 4096, device)
    base = "none" if asked.tiny else "nf4"
    model = model_of("tiny" if asked.tiny else asked.shape, base, device, torch.bfloat16, words)
    pairs = [pair for batch in islice(batches("log-normal", words, seed=3, scale=scale), 2) for pair in batch]
    scorer = Scorer(model, filler=0)
    scorer.packed = True
    known = {"shape": asked.shape, "base": base}
    with say.tried("eight pairs of an optimizer step, by tokens of a pass", **known) as found:
        for budget in (2000, 4096, 8192, 16384):
            found[str(budget)] = best(partial(ours, scorer, budget=budget), pairs, model, device)
    if device.type == "cuda":
        from studio.engine.orpo.triton_kernels import FUSED

        with say.tried("the same at 4096 tokens a pass, by which parts are kernels of our own", **known) as found:
            for parts in ((), *((part,) for part in trial.NAMES), tuple(trial.NAMES)):
                mixed = Scorer(model, filler=0, arithmetic=replace(PLAIN, **{part: getattr(FUSED, part) for part in parts}))
                mixed.packed = True
                found[", ".join(parts) or "none"] = best(partial(ours, mixed, budget=4096), pairs, model, device)
    if left(asked) > 12:
        with say.tried("the same at 4096 tokens a pass, with LoRA's dropout", **known) as found:
            for module in model.modules():
                if "default" in getattr(module, "lora_dropout", {}):
                    module.lora_dropout["default"] = torch.nn.Dropout(0.05)
            found |= best(partial(ours, scorer, budget=4096), pairs, model, device)


def head_alone(found: dict, words: int, width: int, device) -> None:
    """Milliseconds of the head's two products and what lies between, by rows and megabytes of a tile."""
    cuda, kind = device.type == "cuda", device.type
    weight = torch.randn(words, width, device=device, dtype=torch.bfloat16) * 0.02
    hidden = torch.randn(3000 if cuda else 50, width, device=device, dtype=torch.bfloat16).requires_grad_()
    targets = torch.randint(0, words, (len(hidden),), device=device)
    work = partial(engine_head.FrozenLogps.apply, hidden, targets, engine_head.Frozen(weight, None, 1.0, None))
    before = engine_head.TILE_ROWS[kind], engine_head.TILE_BYTES[kind]

    def measured(rows: int, size: int, arithmetic: Arithmetic = PLAIN) -> str:
        engine_head.TILE_ROWS[kind], engine_head.TILE_BYTES[kind] = rows, size << 20
        return f"{timed(partial(work, arithmetic), device, 4) * 1e3:.2f} ms"

    try:
        for rows in (1024, 2048, 4096):
            for size in (16, 32, 64, 128, 256) if cuda else (1,):
                found[f"{rows} rows, {size} MB"] = measured(rows, size)
        if cuda:
            from studio.engine.orpo.triton_kernels import FUSED

            for rows, size in ((2048, 64), (4096, 128)):
                found[f"one kernel a tile, {rows} rows, {size} MB"] = measured(rows, size, FUSED)
    finally:
        engine_head.TILE_ROWS[kind], engine_head.TILE_BYTES[kind] = before
    found["TFLOP of the two products"] = 4 * len(hidden) * words * width / 1e12


def best(step, pairs: list, model: torch.nn.Module, device) -> dict:
    """The shortest of three steps, the largest of their peaks, and why the last one failed, if it did."""
    took, peaks, why = [], 0, ""
    for _ in range(3):
        taken, peak, _, why = once(step, pairs, model, device)
        if why:
            model.zero_grad(set_to_none=True)
            return {"seconds": math.nan, "why": why}
        took, peaks = [*took, taken], max(peaks, peak)
    return {"seconds": round(min(took), 4), "peak_gb": round(peaks / 1e9, 2)}
