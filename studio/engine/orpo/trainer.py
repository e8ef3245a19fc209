"""A transformers Trainer that takes ORPO steps: one call of `training_step` is one optimizer step, whole.

The pairs of a step are the settings' batch x accumulation; how they are divided into passes through the model is
decided here, by tokens, and changes nothing but speed and memory.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedTokenizerBase, PrinterCallback, Trainer, TrainingArguments

from studio import passes
from studio.engine.checkpoints import Checkpoint
from studio.engine.model import compute_dtype
from studio.engine.orpo import copies, memory, offload, packing, relief, resuming, trial
from studio.engine.orpo.arguments import arguments
from studio.engine.orpo.loss import METRICS
from studio.engine.orpo.scoring import Scorer
from studio.engine.tokens import Encoded
from studio.errors import StudioError
from studio.passes import ENOUGH, TOKENS_AT_ONCE, Kept
from studio.settings import Settings, TrainingSettings

TYPICAL = 512
"""Length in tokens of the pair on which activation memory is measured. On a short pair the costs that every pass has, whatever its
length, would dominate."""


class BlownUpError(StudioError):
    """A loss or gradient that is no finite number, found before the optimizer took it. `step` is the last sound one."""

    def __init__(self, step: int, what: str):
        self.step = step
        super().__init__(f"The numbers blew up at step {step + 1}: {what}. "
                         "Lower the learning rate, or lengthen the warm-up, and start again.")


class TooLargeError(StudioError):
    """A step that does not fit the memory however it is divided. `step` is the last one that did."""

    def __init__(self, step: int):
        self.step = step
        super().__init__(f"The memory ran out at step {step + 1}{relief.held()}, even with one pair at a time and every layer recomputed. "
                         "Lower the maximum length, or choose 4 bits for the base, and start a new run.")


class ORPOTrainer(Trainer):
    """Trains `scorer.model` on encoded pairs; `batch_size` and `accumulation` mean what they mean in the reference."""

    def __init__(self, scorer: Scorer, pairs: Sequence[Encoded], training: TrainingSettings, args: TrainingArguments,
                 tokenizer: PreTrainedTokenizerBase):
        super().__init__(model=scorer.model, args=args, train_dataset=_Rows(pairs), processing_class=tokenizer,
                         data_collator=lambda rows: {"pairs": rows})
        self.scorer, self.training = scorer, training
        self._longest = max(packing.cost(pair, scorer.packed) for pair in pairs)
        # With a router's loss the passes are what the settings say.
        self.budget = (training.batch_size * self._longest if scorer.balances_experts
                       else token_budget(training, self._longest, args.device.type))
        self.recomputed = 0
        """Number of layers, counted from the first, that the backward pass recomputes."""
        self.arithmetic = ""
        """Which kernels compute, as sentences; empty on a CPU."""
        self.may_offload = False
        """Whether embedding and head may be moved to RAM if memory is short, and not only if the settings ask for it."""
        self._layers = scorer.causal.config.get_text_config().num_hidden_layers
        self.on_relief: Callable[[str], None] = lambda words: None
        self._logged: dict[str, float] = {}
        self._checkpoint: Checkpoint | None = None
        self.remove_callback(PrinterCallback)  # the event log holds every step already

    def in_words(self) -> str:
        """How the run computes, for its log."""
        how = {0: "All activations are kept", self._layers - 1: "All layers but the last are recomputed in the backward pass"}.get(
            self.recomputed, f"{self.recomputed} of {self._layers} layers are recomputed in the backward pass to fit into memory")
        words = f"{self.scorer.in_words()} {how}; up to {self.budget:,} tokens go through the model at once."
        return " ".join(filter(None, (words, self.arithmetic, offload.in_words(self.scorer.causal))))

    def train(self, *args, **options):
        """As transformers' `train`, with the model attending over branches meanwhile."""
        with self.scorer.attending():
            return super().train(*args, **options)

    def create_optimizer(self, *args, **options) -> torch.optim.Optimizer:
        """As transformers' `create_optimizer`, with the adapter's copies renewed after each step."""
        optimizer = super().create_optimizer(*args, **options)
        trained = [weight for weight in self.model.parameters() if weight.requires_grad]
        optimizer.register_step_post_hook(lambda *_: copies.outdate(trained))
        return optimizer

    def go_on(self, checkpoint: Checkpoint) -> None:
        """As `train`, from where a checkpoint was taken: the steps that follow are those that would have followed then."""
        self._checkpoint = checkpoint
        self.train(resume_from_checkpoint=str(checkpoint.folder))

    # What transformers would read with torch.load comes from the sealed files instead.

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        resuming.put_weights(self, self._checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            resuming.put_optimizer(self, self._checkpoint)

    def _load_scaler(self, checkpoint: str | None) -> None:
        """Comes with the optimizer."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            resuming.put_generators(self._checkpoint)

    def training_step(self, model: nn.Module, inputs: dict, num_items_in_batch=None) -> torch.Tensor:
        """All passes of one optimizer step, forward and backward. Returns its loss, shape ().

        Raises BlownUpError, before the optimizer could spread it, if loss or gradient is no finite number.
        """
        model.train()
        while True:
            draws = relief.Draws()
            try:
                return self._take(inputs)
            except Exception as error:
                if not relief.ran_out(error):
                    raise
            # Out here, where the exception no longer holds what the attempt has made.
            model.zero_grad(set_to_none=True)
            relief.release()
            words = self.relieve()
            if not words:
                raise TooLargeError(self.state.global_step)
            self.on_relief(words)
            draws.again()

    def fit_the_memory(self, pairs: Sequence[Encoded], wanted: str) -> None:
        """Choose the tokens per pass and the number of recomputed layers, from activation memory measured on one pair and free memory.

        `wanted` is the setting for gradient checkpointing.
        """
        device_ = self.scorer.model.device
        enough = ENOUGH.get(device_.type, ENOUGH["cuda"])
        enough = self.budget if self.scorer.balances_experts else max(self._longest, min(self.budget, enough))
        # A run that is resumed on a CPU must go on in passes of the same size, whatever is free then.
        least = enough if device_.type == "cpu" or self.scorer.balances_experts else self._longest
        settled = passes.settled(wanted, self._layers)
        if settled is not None and least == self.budget:
            self.recompute(settled)
            return
        kept = self._kept_of(typical(pairs), min(pairs, key=packing.size))
        most = self._layers - 1 if settled is None else settled
        if kept is None or not kept.fits(least, most, memory.free_bytes(device_)):
            kept = self._kept_of(typical(pairs), min(pairs, key=packing.size)) if self._offload() else kept
        if kept is None:
            self.budget, count = least, most
        else:
            self.budget, count = kept.plan(self.budget, enough, least, memory.free_bytes(device_), settled)
        self.recompute(count)

    def _kept_of(self, *pairs: Encoded) -> Kept | None:
        """Activation memory, measured on the first of these pairs that fits without recomputing; None if none fits."""
        for pair in pairs:
            try:
                return memory.measure(self.scorer, pair)
            except Exception as error:
                if not relief.ran_out(error):
                    raise
            relief.release()  # out here: the exception would keep the tensors of the attempt alive
        return None

    def relieve(self) -> str:
        """Take less memory from now on, for the same result: smaller passes first, then more recomputing. What changed, in words.

        Nothing where nothing is left to change.
        """
        if self.budget > self._longest and not self.scorer.balances_experts:
            self.budget = max(self._longest, self.budget // 2)
            return (f"at most {self.budget:,} tokens go through the model at once, half as many as before, in twice as many passes; "
                    "the pairs of a step and its result stay the same")
        if self.recomputed < self._layers - 1:
            self.recompute(self._layers - 1)
            return "all layers but the last are recomputed in the backward pass, which is slower and gives the same result"
        if self._offload():
            return "embedding matrix and head stay in RAM from now on, which takes more time and gives the same result"
        return ""

    def _offload(self) -> bool:
        """Move embedding and head to RAM if that is allowed, possible and not done yet. Whether it was."""
        return self.may_offload and self.scorer.offload()

    def recompute(self, count: int) -> None:
        """From now on, recompute the first `count` layers in the backward pass."""
        self.recomputed = count
        memory.recompute(self.scorer.causal, count)

    def _take(self, inputs: dict) -> torch.Tensor:
        """One attempt at an optimizer step's passes."""
        losses, metrics = [], []
        weighted = packing.weigh(inputs["pairs"], self.training.batch_size, self.scorer.scope)
        for part in self._passes(weighted):
            with self.compute_loss_context_manager():
                scores, routed = self.scorer.score(part)
                loss = scores.loss(self.training.beta, part.shares)
                if routed is not None:
                    loss = loss + self.scorer.router_weight * part.shares.sum() * routed
            self.accelerator.backward(loss)
            losses.append(loss.detach())
            metrics.append(scores.metrics(self.training.beta, part.shares))
        total = torch.stack(losses).sum()
        self._judge(total, torch.stack(metrics).sum(0))
        return total

    def _passes(self, weighted: list[packing.Weighted]):
        """The step's batches. A router's loss is no mean over tokens, so with one a batch stays what the settings say."""
        if not self.scorer.balances_experts:
            yield from self.scorer.batches(weighted, self.budget)
            return
        for start in range(0, len(weighted), self.training.batch_size):
            yield self.scorer.batch(weighted[start : start + self.training.batch_size])

    def _judge(self, loss: torch.Tensor, metrics: torch.Tensor) -> None:
        """The one place where the step's figures come to the host: loss, gradient's length and metrics together."""
        gradients = [weight.grad for weight in self.model.parameters() if weight.grad is not None]
        length = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)).float()) if gradients else loss.new_zeros(())
        loss_, length_, *values = torch.cat([torch.stack([loss.float(), length.to(loss.device)]), metrics.to(loss.device)]).tolist()
        if not math.isfinite(loss_):
            raise BlownUpError(self.state.global_step, f"the loss is {loss_}")
        # With float16 an overflow of the scaled gradient is part of the method: the scaler skips that step by itself.
        if not math.isfinite(length_) and self.accelerator.scaler is None:
            raise BlownUpError(self.state.global_step, f"the gradient's length is {length_}")
        self._logged = dict(zip(METRICS, values, strict=True))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As transformers' `log`, with the step's metrics by the reference's names."""
        if "loss" in logs:
            logs = logs | self._logged
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: dict) -> int:
        """Nothing: transformers' estimate counts padded tokens of one text, which is not what is computed here."""
        return 0


class _Rows(torch.utils.data.Dataset):
    """The encoded pairs as torch's loader wants them."""

    def __init__(self, pairs: Sequence[Encoded]):
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, place: int) -> Encoded:
        return self.pairs[place]


def typical(pairs: Sequence[Encoded]) -> Encoded:
    """The pair whose length is nearest to TYPICAL."""
    return min(pairs, key=lambda pair: abs(packing.size(pair) - TYPICAL))


def token_budget(training: TrainingSettings, longest: int, device_type: str) -> int:
    """Tokens per pass where memory is plenty: enough to keep the device busy, whatever the batch size."""
    step = training.batch_size * training.accumulation * longest
    return max(longest, min(step, TOKENS_AT_ONCE.get(device_type, TOKENS_AT_ONCE["cuda"])))


def build(settings: Settings, model: PeftModel, tokenizer: PreTrainedTokenizerBase,
          pairs: Sequence[Encoded], folder: Path, warmup: int | None = None) -> ORPOTrainer:
    """A trainer whose `train()` takes the steps that the settings ask for, `warmup` of them with a rising rate (None: as they say).

    `folder` is written to by trackers only.
    """
    causal, wanted = model.get_base_model(), settings.model.offload_embeddings
    if wanted == "on" and offload.is_possible(causal):
        offload.to_ram(causal)
    arithmetic, words = trial.chosen(causal, compute_dtype(settings.model))
    scorer = Scorer(model, tokenizer.pad_token_id, settings.training.nll_on, arithmetic).choose(pairs)
    trainer = ORPOTrainer(scorer, pairs, settings.training, arguments(settings, folder, warmup), tokenizer)
    trainer.arithmetic, trainer.may_offload = words, wanted == "auto"
    trainer.fit_the_memory(pairs, settings.training.gradient_checkpointing)
    return trainer
