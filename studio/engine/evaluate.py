"""What the held-out pairs say: preference accuracy and margin of base or tuned, per pair and exact."""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from peft import PeftModel

from studio.engine.data import Encoded

ROWS_AT_ONCE = 512
"""Positions whose logits are held in float32 at one time: 512 x 128k x 4 bytes = 256 MB."""


@torch.no_grad()
def measure(model: PeftModel, rows: list[Encoded], *, beta: float, batch_size: int, pad: int,
            base: bool = False, progress: Callable[[int], None] = lambda done: None) -> dict[str, float]:
    """Metrics over `rows` by TRL's names, plus `n`; `base=True` measures with the adapter switched off.

    `rewards/*` is beta times the mean log-probability of the answer's tokens (arXiv 2403.07691, eq. 3);
    `log_odds_ratio` is the mean of logsigmoid of the difference in log odds (eqs. 4-7). Every pair weighs the same.
    """
    was_training = model.training
    model.eval()
    chosen, rejected = [], []
    with model.disable_adapter() if base else nullcontext():
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            both = _mean_logps(model, [(row.prompt, row.chosen) for row in batch]
                               + [(row.prompt, row.rejected) for row in batch], pad)
            chosen.append(both[: len(batch)])
            rejected.append(both[len(batch) :])
            progress(start + len(batch))
    model.train(was_training)
    return _metrics(torch.cat(chosen).double().cpu(), torch.cat(rejected).double().cpu(), beta)


def _metrics(chosen: torch.Tensor, rejected: torch.Tensor, beta: float) -> dict[str, float]:
    log_odds = (chosen - rejected) - (_log1mexp(chosen) - _log1mexp(rejected))
    means = {
        "rewards/chosen": beta * chosen,
        "rewards/rejected": beta * rejected,
        "rewards/margins": beta * (chosen - rejected),
        "rewards/accuracies": (chosen > rejected).double(),
        "logps/chosen": chosen,
        "logps/rejected": rejected,
        "log_odds_chosen": log_odds,
        "log_odds_ratio": torch.nn.functional.logsigmoid(log_odds),
    }
    return {name: value.mean().item() for name, value in means.items()} | {"n": len(chosen)}


def _log1mexp(x: torch.Tensor) -> torch.Tensor:
    """log(1 - exp(x)) for x < 0; a probability of exactly one is clamped, for its odds are infinite."""
    return torch.log(-torch.expm1(x.clamp(max=-1e-7)))


def _mean_logps(model: PeftModel, sequences: list[tuple[int, list[int]]], pad: int) -> torch.Tensor:
    """Mean log-probability of each sequence's tokens after its prompt, shape (sequences,), float32."""
    longest = max(len(ids) for _, ids in sequences)
    ids = torch.tensor([row + [pad] * (longest - len(row)) for _, row in sequences], device=model.device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for _, row in sequences], device=model.device)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    means = []
    for row, (prompt, tokens) in enumerate(sequences):
        first = max(prompt, 1)  # the first token of all has nothing before it to be predicted from
        logps = [_logps(logits[row, at - 1 : min(at + ROWS_AT_ONCE, len(tokens)) - 1], ids[row, at : min(at + ROWS_AT_ONCE, len(tokens))])
                 for at in range(first, len(tokens), ROWS_AT_ONCE)]
        means.append(torch.cat(logps).mean())
    return torch.stack(means)


def _logps(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return torch.gather(logits.float().log_softmax(-1), -1, targets[:, None])[:, 0]
