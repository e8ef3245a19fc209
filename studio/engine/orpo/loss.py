"""The ORPO loss, its numerics and its metrics, from per-pair mean log-probabilities (arXiv 2403.07691).

It knows nothing of models, tokens or batches. All arithmetic is in float32 or wider.
"""

import math
from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid

CERTAIN = -1e-7
"""A mean log-probability is taken as at most this: at exactly 0 the odds are infinite and their difference no number."""

METRICS = ("nll_loss", "log_odds_ratio", "log_odds_chosen", "rewards/chosen", "rewards/rejected", "rewards/margins",
           "rewards/accuracies", "logps/chosen", "logps/rejected")
"""TRL's names, in the order in which `Scores.metrics` stacks them."""


@dataclass(frozen=True)
class Scores:
    """What a batch says of its pairs.

    chosen, rejected: mean log-probability of each pair's answer tokens, shape (pairs,).
    nll: negative log-likelihood, already weighted, shape ().
    """

    chosen: torch.Tensor
    rejected: torch.Tensor
    nll: torch.Tensor

    def loss(self, beta: float, weights: torch.Tensor) -> torch.Tensor:
        """NLL + beta * -logsigmoid(log odds ratio), eqs. 5-7; `weights` (pairs,) sum to one over an optimizer step."""
        return self.nll - beta * (weights * logsigmoid(log_odds(self.chosen, self.rejected))).sum()

    @torch.no_grad()
    def metrics(self, beta: float, weights: torch.Tensor) -> torch.Tensor:
        """The weighted sums behind METRICS, shape (9,), still on the device."""
        odds = log_odds(self.chosen, self.rejected)
        each = torch.stack([logsigmoid(odds), odds, beta * self.chosen, beta * self.rejected,
                            beta * (self.chosen - self.rejected), (self.chosen > self.rejected).to(odds.dtype),
                            self.chosen, self.rejected])
        return torch.cat([self.nll.detach()[None], each @ weights])


def log_odds(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """log of odds(chosen) / odds(rejected), with odds = p / (1 - p) (eqs. 4 and 7), for log-probabilities below 0."""
    chosen, rejected = chosen.clamp(max=CERTAIN), rejected.clamp(max=CERTAIN)
    return (chosen - rejected) - (log1mexp(chosen) - log1mexp(rejected))


def log1mexp(x: torch.Tensor) -> torch.Tensor:
    """log(1 - exp(x)) for x < 0, without cancellation on either side of -ln 2 (Mächler 2012)."""
    return torch.where(x < -math.log(2), torch.log1p(-torch.exp(x)), torch.log(-torch.expm1(x)))


def router_loss(logits: tuple[torch.Tensor, ...], weights: torch.Tensor, top_k: int) -> torch.Tensor:
    """The load-balancing loss of a mixture of experts (arXiv 2101.03961, eqs. 4-6), shape ().

    logits: one (tokens, experts) per layer. weights (tokens,): how often each token counts; a shared prompt stands
    for two rows of the unpacked pair and counts twice.
    """
    share, probability, rows = 0.0, 0.0, 0.0
    for layer in logits:
        probabilities = layer.softmax(dim=-1)
        picked = torch.zeros_like(probabilities).scatter_(1, probabilities.topk(top_k, dim=-1).indices, 1.0)
        share = share + weights @ picked.float()
        probability = probability + weights @ probabilities.float()
        rows = rows + weights.sum()
    return (share / rows * (probability / rows)).sum() * logits[0].shape[-1]
