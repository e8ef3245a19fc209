"""Watches a training worker from inside: records each attempt at a step, and makes memory run out once if asked to.

The end-to-end stage writes a sitecustomize.py that calls `begin` in every Python process it starts. This module imports torch only
after the worker has set up its environment.
"""

import gc
import hashlib
import json
import os
import sys
from pathlib import Path

FILE = "attempts.jsonl"
"""In the run's folder. One line per attempt: step, pairs (hashes), tokens that a pass may have, recomputed layers, passes (the tokens of
each), and the loss or the error."""
SHORT_AT = "CARD_CHECK_SHORT_AT"
"""Environment variable: the step, counted from 1, at which memory is made short. Unset or 0: never."""
SHARE = 0.6
"""Share of the memory a step has used so far that is left to it from then on. A pass of half as many tokens fits into it."""


def begin() -> None:
    """Watch this process if it is a training worker; does nothing in any other process."""
    if "studio.engine.train" not in sys.orig_argv:
        return
    from studio.engine import worker

    enter, watched = worker.Desk.enter, []

    def entered(desk, phase):
        enter(desk, phase)
        if phase == "training" and not watched:
            watched.append(watch(desk.folder, int(os.environ.get(SHORT_AT) or 0)))

    worker.Desk.enter = entered


def watch(folder: Path, short_at: int = 0) -> None:
    """Record every attempt at a step in FILE. At step `short_at` the first attempt runs out of memory: on a CUDA card because the
    process may allocate no more than SHARE of what the step before needed, on a CPU because the error is raised after a forward pass.
    """
    import torch

    from studio.engine.orpo.scoring import Scorer
    from studio.engine.orpo.trainer import ORPOTrainer

    take, score, on_card = ORPOTrainer._take, Scorer.score, torch.cuda.is_available()
    pending = []
    """Not empty while the next forward pass on a CPU is to fail."""
    limited, passes = [], []

    def taken(trainer, inputs):
        step = trainer.state.global_step + 1
        known = {"step": step, "pairs": [_hash(pair) for pair in inputs["pairs"]], "tokens": trainer.budget, "recomputed": trainer.recomputed}
        if on_card and step == short_at - 1:
            torch.cuda.reset_peak_memory_stats()
        if step == short_at and not limited:
            limited.append(_limit_card() if on_card else pending.append(step))
        passes.clear()
        try:
            loss = take(trainer, inputs)
        except Exception as error:
            _write(folder, known | {"passes": list(passes), "error": f"{type(error).__name__}: {error}"[:400]})
            raise
        _write(folder, known | {"passes": list(passes), "loss": float(loss)})
        return loss

    def scored(scorer, batch):
        passes.append(batch.ids.numel())
        result = score(scorer, batch)
        if pending:  # after the pass, so that dropout has drawn its random numbers
            pending.clear()
            raise torch.OutOfMemoryError("CUDA out of memory. (Injected by the check, because this machine has no GPU.)")
        return result

    ORPOTrainer._take, Scorer.score = taken, scored


def _limit_card() -> None:
    """Allow this process what it holds now and SHARE of what the last step needed on top of it."""
    import torch

    gc.collect()
    needed = torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()
    torch.cuda.empty_cache()
    limit = torch.cuda.memory_reserved() + SHARE * needed
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(0).total_memory)


def _hash(pair) -> str:
    return hashlib.sha256(pair.chosen.tobytes() + b"|" + pair.rejected.tobytes()).hexdigest()[:12]


def _write(folder: Path, attempt: dict) -> None:
    with open(folder / FILE, "a", encoding="utf-8") as file:
        file.write(json.dumps(attempt) + "\n")


def read(folder: Path) -> list[dict]:
    """The attempts of a run, in order; none if it was not watched."""
    path = folder / FILE
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
