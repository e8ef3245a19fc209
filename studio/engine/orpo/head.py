"""Log-probabilities of scored tokens without full logits: only the rows that predict one, and of those a tile at a time.

With a frozen head the gradient of log p(y) by the hidden state is W[y] - softmax(Wh) W, whatever comes from upstream:
it is worked out in the forward pass and scaled in the backward one, so that no logits are kept or computed twice.
The vocabulary is walked through in tiles small enough to stay in the processor's cache between the product that makes
their logits and the one that uses them; the softmax is put together on the way (Milakov & Gimelshein,
arXiv 1805.02867). A head that learns, or does what is not known here, takes the model's own way, chunk by chunk,
recomputed backward.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from studio.engine.orpo import offload
from studio.engine.orpo.arithmetic import PLAIN, Arithmetic, Sums, Tile, multiplies_16_bits, product
from studio.engine.orpo.forwards import replaced

TILE_ROWS = {"cpu": 1024, "cuda": 2048}
TILE_BYTES = {"cpu": 8 * 1024**2, "cuda": 64 * 1024**2}
"""Size of a frozen head's tile of float32 logits: 1024 rows by 2048 words on a CPU. Fewer rows make a wider tile, up to TILE_WORDS."""
STRIDE = 64
"""A tile is a multiple of this many words wide: rows that begin in the middle of a cache line cost the products a fifth."""

CHUNK_BYTES = 64 * 1024**2
"""Size of any other head's float32 logits held at one time, all words of a row together."""

TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


class _Hidden(BaseModelOutputWithPast):
    """A backbone's output that has nothing but a hidden state, whatever else its family would ask it for."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


@dataclass(frozen=True)
class Frozen:
    """What stands between hidden state and logits in a head that does not learn: cap(scale * (W h + bias))."""

    weight: torch.Tensor | offload.InRam
    bias: torch.Tensor | None
    scale: float
    softcap: float | None

    def tiles(self, parts: Sequence[slice], device: torch.device) -> offload.Tiles:
        """The words of each part with their rows of the matrix, on the device."""
        if isinstance(self.weight, offload.InRam):
            return self.weight.tiles(parts, device)
        return ((part, self.weight[part]) for part in parts)

    def rows(self, words: torch.Tensor) -> torch.Tensor:
        """The matrix' rows of these words, on the words' device."""
        return self.weight.rows(words) if isinstance(self.weight, offload.InRam) else self.weight[words]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(rows, width) -> (rows, vocabulary) in float32."""
        parts = _even_parts(len(self.weight), offload.TILE_WORDS, STRIDE)
        return torch.cat([self.capped(product(hidden, tile.t()), part) for part, tile in self.tiles(parts, hidden.device)], 1)

    def capped(self, product: torch.Tensor, words: slice) -> torch.Tensor:
        """The logits of these words from their part of W h, which they overwrite."""
        if self.bias is not None:
            product += self.bias[words]
        if self.scale != 1:
            product *= self.scale
        if self.softcap is not None:
            product.div_(self.softcap).tanh_().mul_(self.softcap)
        return product

    def steepness(self, logits: torch.Tensor) -> torch.Tensor | float:
        """The derivative of the cap, by its own output; 1 without a cap."""
        return 1.0 if self.softcap is None else 1 - (logits / self.softcap).square_()


class Head:
    """The head of a causal language model, or of one inside a PEFT model."""

    def __init__(self, causal: PreTrainedModel, arithmetic: Arithmetic = PLAIN):
        self.causal, self.arithmetic = causal, arithmetic
        self.vocabulary = causal.config.get_text_config().vocab_size
        self.frozen = self._frozen()

    @property
    def working_bytes(self) -> int:
        """What is held at one time: a tile of logits and its soft cap, or a chunk, its log-probabilities and their cast; of a head that
        is in RAM also two tiles of the matrix.
        """
        logits = 3 * CHUNK_BYTES if self.frozen is None else 2 * TILE_BYTES[self.causal.device.type]
        layer = self.causal.get_output_embeddings()
        return logits + (2 * offload.TILE_WORDS * layer.weight[0].nbytes if offload.in_ram(layer) else 0)

    def logps(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """log p of each target under its hidden state. hidden (rows, width), targets (rows,) -> float32 (rows,)."""
        if self.frozen is not None:
            with torch.autocast(hidden.device.type, enabled=False):  # it would turn the float32 sums into 16 bits
                return FrozenLogps.apply(hidden, targets, self.frozen, self.arithmetic)
        rows = max(1, CHUNK_BYTES // (4 * self.vocabulary))
        chunks = zip(hidden.split(rows), targets.split(rows), strict=True)
        return torch.cat([checkpoint(self._own_logps, *chunk, use_reentrant=False) if torch.is_grad_enabled()
                          else self._own_logps(*chunk) for chunk in chunks])

    def own_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """The logits as the model's own code makes them of a hidden state, (rows, width) -> (rows, vocabulary)."""
        # The model's layers are skipped meanwhile: what follows them is handed this hidden state.
        with replaced({self.causal.base_model: lambda *inputs, **options: _Hidden(last_hidden_state=hidden[None])}):
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
        shortcut = Frozen(offload.in_ram(layer) or layer.weight, layer.bias, float(scale), getattr(config, "final_logit_softcapping", None))
        generator = torch.Generator().manual_seed(0)
        probe = torch.randn(8, layer.in_features, generator=generator).to(self.causal.device, layer.weight.dtype)
        own = self.own_logits(probe).float()
        off = (shortcut.logits(probe) - own).norm() / own.norm()
        return shortcut if off <= TOLERANCE.get(layer.weight.dtype, 0) else None


class FrozenLogps(torch.autograd.Function):
    """log softmax(logits(h))[y] by row, with its gradient by h stored instead of the logits."""

    @staticmethod
    def forward(ctx, hidden: torch.Tensor, targets: torch.Tensor, head: Frozen, arithmetic: Arithmetic) -> torch.Tensor:
        wanted = ctx.needs_input_grad[0]
        logps = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        slopes = torch.empty_like(hidden) if wanted else None
        # One block of memory for all tiles: to be handed fresh pages for each costs as much as filling them.
        block = torch.empty(TILE_BYTES[hidden.device.type] // 4, device=hidden.device)
        for part in _even_parts(len(hidden), TILE_ROWS[hidden.device.type]):
            tile = block[: offload.TILE_WORDS * (part.stop - part.start)]
            logps[part], slope = streamed(hidden[part], targets[part], head, tile, wanted, arithmetic)
            if wanted:
                slopes[part] = slope
        ctx.slopes = slopes
        return logps

    @staticmethod
    def backward(ctx, upstream: torch.Tensor):
        # In place: activations are at their peak here, and a product in 32 bits would be twice the size of the slopes.
        slopes, ctx.slopes = ctx.slopes, None
        return slopes.mul_(upstream[:, None]), None, None, None


def _even_parts(length: int, most: int, multiple: int = 1) -> list[slice]:
    """0..length in as few parts of at most `most` as there can be, none but the last much smaller than the others.

    All but the last are a multiple of `multiple` long.
    """
    most = max(multiple, most // multiple * multiple)
    size = -(-length // max(1, -(-length // most)))
    size = -(-size // multiple) * multiple
    return [slice(start, min(start + size, length)) for start in range(0, length, size)] if length else []


def streamed(hidden: torch.Tensor, targets: torch.Tensor, head: Frozen, block: torch.Tensor, wanted: bool,
             arithmetic: Arithmetic = PLAIN) -> tuple[torch.Tensor, torch.Tensor | None]:
    """log p of each row's target, (rows,), and if `wanted` its gradient by the hidden state, (rows, width), float32.

    The tiles' logits are written to `block`. All that is kept from tile to tile is, by row, the `Sums` and the sum of
    exp(logit - highest) weighted with the words' weights.
    """
    rows, words = len(hidden), len(head.weight)
    narrow = multiplies_16_bits(hidden)
    if not narrow:
        hidden = hidden.float()
    sums = Sums.of(rows, hidden.device)
    pull = torch.zeros(rows, hidden.shape[1], dtype=torch.float32, device=hidden.device) if wanted else None
    for part, weight in head.tiles(_even_parts(words, len(block) // rows, STRIDE), hidden.device):
        weight = weight if narrow else weight.float()
        products = product(hidden, weight.t(), out=block[: rows * len(weight)].view(rows, -1))
        numerators = arithmetic.tile(Tile(products, targets, part.start, sums, head, weight.dtype, wanted))
        if wanted:
            arithmetic.add_product(pull.mul_(sums.shrink[:, None]), numerators, weight)
    logps = sums.at_target - sums.highest - sums.total.log()
    if not wanted:
        return logps, None
    push = head.rows(targets).float() * head.steepness(sums.at_target[:, None])
    return logps, push.sub_(pull.div_(sums.total[:, None])).mul_(head.scale)
