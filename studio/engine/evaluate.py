"""What the held-out pairs say: preference accuracy and margin of base or tuned, per pair and exact."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from peft import PeftModel

from studio.engine.orpo import packing, relief
from studio.engine.orpo.forwards import evaluating
from studio.engine.orpo.loss import METRICS
from studio.engine.orpo.scoring import Scorer
from studio.engine.tokens import Encoded


@dataclass(frozen=True)
class Measured:
    """Metrics by TRL's names, plus `loss` and `n`; and the reward margins pair by pair, in the order of the pairs."""

    metrics: dict[str, float]
    margins: list[float]


def measure(scorer: Scorer, rows: Sequence[Encoded], *, beta: float, batch_size: int, base: bool = False,
            progress: Callable[[int], None] = lambda done: None) -> Measured:
    """What `rows` say; `base=True` measures with the adapter switched off.

    `rewards/*` is beta times the mean log-probability of the answer's tokens (arXiv 2403.07691, eq. 3);
    `log_odds_ratio` is the mean of logsigmoid of the difference in log odds (eqs. 4-7). Every pair weighs the same,
    for NLL every token of them. Where memory runs out the same is measured in batches half as large.
    """
    while True:
        try:
            return _measured(scorer, rows, beta, batch_size, base, progress)
        except Exception as error:
            if batch_size == 1 or not relief.ran_out(error):
                raise
        relief.release()
        batch_size //= 2


@torch.no_grad()
def _measured(scorer: Scorer, rows: Sequence[Encoded], beta: float, batch_size: int, base: bool,
              progress: Callable[[int], None]) -> Measured:
    model = scorer.model
    weighted = packing.weigh(list(rows), len(rows), scorer.scope)
    by_size = sorted(range(len(rows)), key=lambda place: packing.size(weighted[place].pair))
    sums, loss, done, margins = 0.0, 0.0, 0, [0.0] * len(rows)
    switched_off = model.disable_adapter() if base and isinstance(model, PeftModel) else nullcontext()
    with evaluating(model), scorer.attending(), switched_off:
        for start in range(0, len(weighted), batch_size):
            places = by_size[start : start + batch_size]
            batch = scorer.batch([weighted[place] for place in places])
            scores, _ = scorer.score(batch)
            sums = sums + scores.metrics(beta, batch.shares).double().cpu()
            loss = loss + scores.loss(beta, batch.shares).double().item()
            for place, margin in zip(places, (beta * (scores.chosen - scores.rejected)).tolist(), strict=True):
                margins[place] = float(f"{margin:.5g}")
            done += len(batch.shares)
            progress(done)
    return Measured({"loss": loss} | dict(zip(METRICS, sums.tolist(), strict=True)) | {"n": len(rows)}, margins)
