"""A model's log-probabilities of pairs, by packed rows where it allows them, by padded rows where it does not.

The choice follows from the model's config and from a check on the longest and the shortest pair: packed together, they must give the
same hidden states as four separate forward passes through the same layers. Before that, each of our layers is compared with the
model's own on the same input. Training and evaluation both use this module.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from studio.engine.orpo import joint, layers, offload, packing
from studio.engine.orpo.arithmetic import PLAIN, Arithmetic
from studio.engine.orpo.attention import Layout, branching
from studio.engine.orpo.forwards import evaluating, replaced
from studio.engine.orpo.head import Head
from studio.engine.orpo.loss import Scores, router_loss
from studio.engine.orpo.packing import Batch, Scope, Weighted
from studio.engine.orpo.rotary import Rotation
from studio.engine.tokens import Encoded

KNOWN_LAYERS = {"full_attention", "sliding_attention", "attention"}
"""Kinds of layers in which a token's place is all that matters; others carry a state from token to token."""

AGREES = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 3e-2}
"""Largest allowed mean deviation of packed from separate hidden states over a prompt or an answer, relative to their norm."""
AGREES_INT8 = 0.1
"""The same for int8 bases, whose rounding depends on what else is in the batch."""
LAYER_AGREES = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
"""Largest allowed deviation of one of our layers from the model's own on the same input."""
SINGLE = 10
"""A single token may deviate this many times as much: 16-bit rounding is uneven and grows with a model's depth."""


class Scorer:
    """Scores batches of pairs with one model. `packed` says how, `reason` why."""

    def __init__(self, model: PeftModel | PreTrainedModel, filler: int, scope: Scope = "sequence",
                 arithmetic: Arithmetic = PLAIN):
        self.model, self.filler, self.scope = model, filler, scope
        self.causal: PreTrainedModel = model.get_base_model() if isinstance(model, PeftModel) else model
        self._forwards = (joint.fused(model, arithmetic) if isinstance(model, PeftModel) else {}) | layers.lean(self.causal, arithmetic)
        self._rotary = Rotation(self.causal, arithmetic.rotary)
        self._attending = False
        self.head = Head(self.causal, arithmetic)
        self.packed, self.reason, self.remark = False, "packing was not tried", ""
        config = self.causal.config.get_text_config()
        self.balances_experts = bool(getattr(config, "output_router_logits", False))
        self.router_weight = float(getattr(config, "router_aux_loss_coef", 0.0))

    def choose(self, pairs: Sequence[Encoded]) -> "Scorer":
        """Decide for packed or padded rows by the longest and the shortest of the pairs. Returns itself."""
        self.packed, self.reason = True, ""
        by_length = sorted(pairs, key=lambda pair: packing.cost(pair, packed=True))
        tried = [by_length[-1], by_length[0]]
        separate = self._check_layers(tried)
        why_not = _known_not_to_pack(self.causal) or self._disagreement(tried, separate)
        if why_not:
            self.packed, self.reason = False, why_not
        return self

    def in_words(self) -> str:
        """One sentence for the log of a run."""
        if self.packed:
            return ("Pairs are packed: each prompt is computed once and nothing is padding. "
                    f"Checked on the longest and the shortest: {self.reason}.{self.remark}")
        return f"Pairs are padded and grouped by length, not packed, because {self.reason}.{self.remark}"

    def offload(self) -> bool:
        """Keep embedding and head in RAM from now on, for the same scores and less of the card. False where that cannot be, or is so."""
        if not offload.is_possible(self.causal) or offload.bytes_in_ram(self.causal) or offload.why_not(self.causal):
            return False
        offload.to_ram(self.causal)
        self.head = Head(self.causal, self.head.arithmetic)
        return True

    # --- batches ------------------------------------------------------------------------------------------------

    def batches(self, weighted: Sequence[Weighted], budget: int) -> list[Batch]:
        """The pairs as batches of at most `budget` tokens, on the model's device."""
        groups = packing.grouped(weighted, budget, self.packed)
        return [self.batch(group) for group in groups]

    def batch(self, group: Sequence[Weighted]) -> Batch:
        """One batch of these pairs."""
        made = packing.pack(group, self.scope) if self.packed else packing.pad(group, self.filler, self.scope)
        return made.to(self.model.device)

    @contextmanager
    def attending(self) -> Iterator[None]:
        """Context for all forward and backward passes, recomputed layers included: the model computes by our code meanwhile."""
        if self._attending:
            yield
            return
        self._attending = True
        try:
            with replaced(self._forwards), self._rotary.replaced(), branching(self.causal) if self.packed else nullcontext():
                yield
        finally:
            self._attending = False

    def computing(self):
        """Context of a forward pass: products in 16 bits where the base is, whatever its adapter is kept in.

        The same for a step, a measurement, the proof and the look at the memory, so that each speaks of what is trained.
        """
        # The embedding's type is the base's. Where the model computes is another question: its matrix may be in RAM.
        dtype, device = self.causal.get_input_embeddings().weight.dtype, self.causal.device
        in_16_bits = dtype is torch.bfloat16 or (dtype is torch.float16 and device.type == "cuda")
        return torch.autocast(device.type, dtype) if in_16_bits else nullcontext()

    # --- scores -------------------------------------------------------------------------------------------------

    def score(self, batch: Batch) -> tuple[Scores, torch.Tensor | None]:
        """The pairs' mean log-probabilities and, where experts are balanced, the router's loss. Within `attending`."""
        with self.computing():
            hidden, routed = self._hidden(batch)
            logps = self.head.logps(hidden.flatten(0, 1).index_select(0, batch.at), batch.targets)
        chosen, rejected, nll = batch.weights * logps
        sums = torch.zeros(2, len(batch.shares), dtype=logps.dtype, device=logps.device)
        means = sums.index_add(1, batch.pair, torch.stack([chosen, rejected]))
        scores = Scores(means[0], means[1], -nll.sum())
        return scores, router_loss(routed, batch.counts, self.causal.num_experts_per_tok) if routed else None

    def _hidden(self, batch: Batch) -> tuple[torch.Tensor, tuple[torch.Tensor, ...] | None]:
        inputs = {"input_ids": batch.ids, "use_cache": False}
        if batch.branches:
            # A mask of four dimensions is passed on as it is. Without one, positions that jump back would be taken for
            # the sign of packed texts, and the branch be cut off its prompt.
            inputs |= {"position_ids": batch.positions, "attention_mask": batch.weights.new_zeros(1, 1, 1, 1),
                       "layout": Layout(batch.branches, batch.ids.device)}
        else:
            inputs["attention_mask"] = batch.mask
        if self.balances_experts:
            inputs["output_router_logits"] = True
        output = self.causal.base_model(**inputs)
        return output.last_hidden_state, output.router_logits if self.balances_experts else None

    # --- the proof ----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _check_layers(self, pairs: list[Encoded]) -> torch.Tensor:
        """Compare each of our layers with the model's own and drop those that differ. Returns the hidden states of separate passes.

        Layers are compared one by one on the same input: in a deep model rounding grows from layer to layer, so the final hidden
        states would differ even if every layer were right.
        """
        off: dict[nn.Module, float] = {}
        with evaluating(self.causal), self.computing():
            with replaced({module: _beside(module, ours, off) for module, ours in self._forwards.items()}):
                self._separate(pairs)
            wrong = {module: apart for module, apart in off.items() if not apart <= self._limit(LAYER_AGREES)}
            if wrong:
                kinds = {type(module).__name__ for module in wrong}
                self._forwards = {module: ours for module, ours in self._forwards.items() if type(module).__name__ not in kinds}
                self.remark = (f" {', '.join(sorted(kinds))} layers run the model's own code, because the output of ours differs by "
                               f"{max(wrong.values()):.1e} of its norm.")
            with replaced(self._forwards), self._rotary.replaced():
                return self._separate(pairs)

    @torch.no_grad()
    def _disagreement(self, pairs: list[Encoded], separate: torch.Tensor) -> str:
        """Why packing would be wrong, or nothing. Sets `reason` to how well both ways agree."""
        try:
            with evaluating(self.causal), replaced(self._forwards), self._rotary.replaced(), branching(self.causal), self.computing():
                hidden, _ = self._hidden(self.batch(packing.weigh(pairs, len(pairs), self.scope)))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a family's code raises when it is handed what it does not know
            return f"this model cannot be run on packed rows ({str(error).splitlines()[0][:120] if str(error) else type(error).__name__})"
        packed = _unpacked(hidden[0], pairs)
        if off := self._apart(packed, separate, pairs):
            return f"packed and separate rows differ for this model ({off})"
        mean = _deviations(packed, separate).mean().item()
        self.reason = f"hidden states {f'differ by {mean:.0e} from' if mean else 'are'} those of separate rows"
        return ""

    def _limit(self, limits: dict[torch.dtype, float]) -> float:
        """The limit for the precision of this model."""
        in_8_bits = getattr(self.causal, "is_loaded_in_8bit", False)
        return AGREES_INT8 if in_8_bits else limits.get(self.causal.get_input_embeddings().weight.dtype, limits[torch.float32])

    def _separate(self, pairs: list[Encoded]) -> torch.Tensor:
        """The hidden states of all texts in the order chosen, rejected, chosen, ..., each from a separate forward pass."""
        texts = (torch.tensor([list(text)], device=self.model.device) for pair in pairs for text in (pair.chosen, pair.rejected))
        return torch.cat([self.causal.base_model(input_ids=ids, use_cache=False).last_hidden_state[0] for ids in texts])

    def _apart(self, one: torch.Tensor, other: torch.Tensor, pairs: list[Encoded]) -> str:
        """How far two computations of the same hidden states differ, in words; empty if the difference is allowed."""
        limit, off = self._limit(AGREES), _deviations(one, other)
        mean, single = max(stretch.mean().item() for stretch in off.split(_stretches(pairs))), off.max().item()
        if mean <= limit and single <= SINGLE * limit:
            return ""
        return (f"by {mean:.1e} of their size over a prompt or answer and {single:.1e} at a token, "
                f"{limit:.0e} and {SINGLE * limit:.0e} allowed")


def _known_not_to_pack(causal: PreTrainedModel) -> str:
    config = causal.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None) or [])
    if unknown := sorted(kinds - KNOWN_LAYERS):
        return f"{config.model_type} has layers that carry a state from token to token ({', '.join(unknown)})"
    return ""


def _unpacked(hidden: torch.Tensor, pairs: list[Encoded]) -> torch.Tensor:
    """The hidden states of a packed row in the order chosen, rejected, chosen, ... of separate texts."""
    parts, start = [], 0
    for pair in pairs:
        common, trunk = packing.shared(pair), start + len(pair.chosen)
        end = trunk + len(pair.rejected) - common
        parts += [hidden[start:trunk], hidden[start : start + common], hidden[trunk:end]]
        start = end
    return torch.cat(parts)


def _stretches(pairs: list[Encoded]) -> list[int]:
    """Lengths of the shared prefix and the rest of each text, in the order of `_unpacked`."""
    made = []
    for pair in pairs:
        common = packing.shared(pair)
        made += [common, len(pair.chosen) - common, common, len(pair.rejected) - common]
    return [length for length in made if length]


def _beside(module: nn.Module, ours: Callable[..., torch.Tensor], off: dict[nn.Module, float]) -> Callable[..., torch.Tensor]:
    """The module's own forward pass, which records in `off` how far ours deviates on the same input."""
    own = module.forward

    def forward(*inputs, **options) -> torch.Tensor:
        made, other = own(*inputs, **options), ours(*inputs, **options)
        apart = ((made - other).float().norm() / made.float().norm().clamp_min(torch.finfo(torch.float32).tiny)).item()
        off[module] = max(off.get(module, 0.0), apart)
        return made

    return forward


def _deviations(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Norm of the difference of two hidden states per token, (tokens,), relative to the mean norm of `other`."""
    return (one - other).float().norm(dim=-1) / other.float().norm(dim=-1).mean()
