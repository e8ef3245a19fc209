"""Log-probabilities of scored tokens without full logits: only the rows that predict one, a few hundred at a time.

With a frozen head the gradient of log p(y) by the hidden state is W[y] - softmax(Wh) W, whatever comes from upstream:
it is worked out in the forward pass and scaled in the backward one, so that no logits are kept or computed twice.
A head that learns, or does what is not known here, takes the model's own way, chunk by chunk, recomputed backward.
"""

from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

CHUNK_BYTES = 64 * 1024**2
"""Size of the float32 logits held at one time: 340 rows at a vocabulary of 49k, 130 at 128k."""

TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


class _Hidden(BaseModelOutputWithPast):
    """A backbone's output that has nothing but a hidden state, whatever else its family would ask it for."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


@dataclass(frozen=True)
class Frozen:
    """What stands between hidden state and logits in a head that does not learn: cap(scale * (W h + bias))."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    scale: float
    softcap: float | None

    def logits(self, hidden: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """(rows, width) -> (rows, vocabulary) in float32, written to `out` if it is given."""
        logits = _product(hidden, self.weight.t(), out)
        if self.bias is not None:
            logits += self.bias
        if self.scale != 1:
            logits *= self.scale
        if self.softcap is not None:
            logits.div_(self.softcap).tanh_().mul_(self.softcap)
        return logits


class Head:
    """The head of a causal language model, or of one inside a PEFT model."""

    def __init__(self, causal: PreTrainedModel):
        self.causal = causal
        self.vocabulary = causal.config.get_text_config().vocab_size
        self.frozen = self._frozen()

    def logps(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """log p of each target under its hidden state. hidden (rows, width), targets (rows,) -> float32 (rows,)."""
        rows = max(1, CHUNK_BYTES // (4 * self.vocabulary))
        if self.frozen is not None:
            with torch.autocast(hidden.device.type, enabled=False):  # it would turn the float32 sums into 16 bits
                return _FrozenLogps.apply(hidden, targets, self.frozen, rows)
        chunks = zip(hidden.split(rows), targets.split(rows), strict=True)
        return torch.cat([checkpoint(self._own_logps, *chunk, use_reentrant=False) if torch.is_grad_enabled()
                          else self._own_logps(*chunk) for chunk in chunks])

    def own_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """The logits as the model's own code makes them of a hidden state, (rows, width) -> (rows, vocabulary)."""
        with _backbone_says(self.causal, hidden[None]):
            return self.causal(input_ids=torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device),
                               use_cache=False).logits[0]

    def _own_logps(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self.own_logits(hidden).float().log_softmax(-1).gather(1, targets[:, None])[:, 0]

    @torch.no_grad()
    def _frozen(self) -> Frozen | None:
        """The shortcut, if the head is one and the shortcut gives what the model's own code gives."""
        layer, config = self.causal.get_output_embeddings(), self.causal.config.get_text_config()
        if type(layer) is not nn.Linear or any(weight.requires_grad for weight in layer.parameters()):
            return None
        scaling = getattr(config, "logits_scaling", None)
        scale = 1 / scaling if scaling else getattr(config, "logit_scale", None) or getattr(config, "lm_head_multiplier", None) or 1.0
        shortcut = Frozen(layer.weight, layer.bias, float(scale), getattr(config, "final_logit_softcapping", None))
        generator = torch.Generator().manual_seed(0)
        probe = torch.randn(8, layer.in_features, generator=generator).to(layer.weight)
        own = self.own_logits(probe).float()
        off = (shortcut.logits(probe) - own).norm() / own.norm()
        return shortcut if off <= TOLERANCE.get(layer.weight.dtype, 0) else None


@contextmanager
def _backbone_says(causal: PreTrainedModel, hidden: torch.Tensor):
    """The model's layers are skipped meanwhile: what follows them is handed this hidden state, (1, rows, width)."""
    backbone = causal.base_model
    before = vars(backbone).get("forward")
    backbone.forward = lambda *inputs, **options: _Hidden(last_hidden_state=hidden)
    try:
        yield
    finally:
        if before is None:
            del backbone.forward
        else:
            backbone.forward = before


class _FrozenLogps(torch.autograd.Function):
    """log softmax(logits(h))[y] by row, with its gradient by h stored instead of the logits."""

    @staticmethod
    def forward(ctx, hidden: torch.Tensor, targets: torch.Tensor, head: Frozen, rows: int) -> torch.Tensor:
        wanted = ctx.needs_input_grad[0]
        slopes = torch.empty_like(hidden) if wanted else None
        if not hidden.is_cuda:  # no product of 16-bit factors into float32 there: the factors become float32, once
            head, hidden = replace(head, weight=head.weight.float()), hidden.float()
        logps = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        # One block of memory for all chunks: to be handed fresh pages for each costs as much as filling them.
        block = torch.empty(min(rows, len(hidden)), head.weight.shape[0], device=hidden.device)
        for start in range(0, len(hidden), rows):
            part = slice(start, start + rows)
            target = targets[part, None]
            logits = head.logits(hidden[part], block[: len(target)])
            capped = None if head.softcap is None else 1 - (logits / head.softcap).square_()
            logps[part], odds, total = _softmax(logits, target)
            if wanted:
                slopes[part] = _slope(odds, total, capped, target, head)
        ctx.slopes = slopes
        return logps

    @staticmethod
    def backward(ctx, upstream: torch.Tensor):
        return (upstream[:, None] * ctx.slopes).to(ctx.slopes.dtype), None, None, None


def _softmax(logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """log p(target), (rows,), and the softmax as numerators, (rows, vocabulary), over a sum, (rows, 1). Overwrites the logits."""
    logits -= logits.amax(-1, keepdim=True)
    at_target = logits.gather(1, target)
    total = logits.exp_().sum(-1, keepdim=True)
    return (at_target - total.log())[:, 0], logits, total


def _slope(numerators: torch.Tensor, total: torch.Tensor, capped: torch.Tensor | None, target: torch.Tensor,
           head: Frozen) -> torch.Tensor:
    """d log p(target) / d hidden = (onehot - p) through cap and scale, times W; (rows, width). Overwrites the numerators."""
    # What all columns share, the division by -total, waits until the rows have become narrow.
    numerators.scatter_add_(1, target, -total)
    factor = -head.scale / total
    if capped is not None:
        numerators *= capped
    if head.weight.dtype != torch.float32:
        numerators *= factor  # 16 bits are for numbers of the size of a probability
        return _product(numerators.to(head.weight.dtype), head.weight)
    return _product(numerators, head.weight) * factor


def _product(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """left @ right summed up and returned in float32, also for 16-bit factors: rounding logits to 16 bits costs digits."""
    if left.dtype == torch.float32:
        return torch.mm(left, right, out=out)
    if not left.is_cuda:
        return torch.mm(left.float(), right.float(), out=out)
    return torch.mm(left, right, out_dtype=torch.float32, **({} if out is None else {"out": out}))
