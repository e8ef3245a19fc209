"""TRL's ORPOTrainer, the reference that our engine is measured against. The only import of it, in an experimental folder."""

import os

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
from datasets import Dataset
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, Trainer, TrainerCallback
from trl.data_utils import maybe_apply_chat_template, maybe_extract_prompt
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from studio.engine.model import lora_config
from studio.engine.orpo.arguments import arguments
from studio.practice import MODEL
from studio.preferences.pairs import Pair
from studio.settings import Settings


def reference_trainer(settings: Settings, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, found: list[Pair], folder,
                      **changes) -> Trainer:
    """TRL's trainer with the same settings as ours; `changes` are ORPOConfig's own options."""
    training, ours = settings.training, arguments(settings, folder)
    same = {name: getattr(ours, name) for name in (
        "output_dir", "learning_rate", "lr_scheduler_type", "warmup_steps", "num_train_epochs", "max_steps", "optim", "weight_decay",
        "max_grad_norm", "bf16", "fp16", "use_cpu", "seed", "report_to", "logging_steps", "logging_nan_inf_filter", "save_strategy",
        "eval_strategy", "disable_tqdm", "remove_unused_columns", "dataloader_pin_memory")}
    config = ORPOConfig(**same | {
        "per_device_train_batch_size": training.batch_size, "gradient_accumulation_steps": training.accumulation,
        "beta": training.beta, "max_length": training.max_length, "disable_dropout": False,
        "gradient_checkpointing": training.gradient_checkpointing == "full"} | changes)
    trainer = ORPOTrainer(model=base, args=config, processing_class=tokenizer, peft_config=lora_config(settings.adapter),
                          train_dataset=Dataset.from_list([pair.row() for pair in found]))
    trainer.remove_callback(PrinterCallback)
    return trainer


class Watch(TrainerCallback):
    """Keeps what each optimizer step was taken with: its gradients, its pairs, its logged figures."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer
        self.gradients, self.pairs, self.logs, self._seen = [], [], [], []
        trainer.add_callback(self)
        if hasattr(trainer, "scorer"):
            self._spy(trainer, "training_step", lambda inputs: [tuple(map(int, pair.chosen)) for pair in inputs["pairs"]])
        else:
            self._spy(trainer, "compute_loss", lambda inputs: [
                tuple(ids[mask.bool()].tolist()) for ids, mask in zip(inputs["chosen_input_ids"], inputs["chosen_attention_mask"], strict=True)])

    def _spy(self, trainer, method: str, chosen) -> None:
        real = getattr(trainer, method)

        def spied(model, inputs, *args, **options):
            self._seen += chosen(inputs)
            return real(model, inputs, *args, **options)

        setattr(trainer, method, spied)

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        self.gradients.append(torch.cat([weight.grad.flatten().clone() for weight in model.parameters() if weight.grad is not None]))
        self.pairs.append(sorted(self._seen))
        self._seen = []

    def on_log(self, args, state, control, logs=None, **_):
        if "loss" in logs:
            self.logs.append(dict(logs))


def reference_step(model: torch.nn.Module, beta: float, folder: str, as_it_runs: bool = False, **changes):
    """TRL's own loss code on batches that its own collator pads: a function of encoded pairs that leaves gradients.

    `as_it_runs`: the model is prepared by accelerate as TRL's Trainer does it, with autocast and outputs in float32.
    """
    config = ORPOConfig(**{"output_dir": folder, "beta": beta, "max_length": 1 << 20, "report_to": "none", "disable_dropout": False,
                           "use_cpu": model.device.type == "cpu", "bf16": False, "remove_unused_columns": False,
                           "gradient_checkpointing": False, "per_device_train_batch_size": 2} | changes)
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    row = {"prompt": [{"role": "user", "content": "a"}], "chosen": [{"role": "assistant", "content": "b"}],
           "rejected": [{"role": "assistant", "content": "c"}]}
    trainer = ORPOTrainer(model=model, args=config, processing_class=tokenizer, train_dataset=Dataset.from_list([row]))
    if as_it_runs:
        trainer.accelerator.prepare_model(trainer.model, device_placement=False, evaluation_mode=True)

    def step(pairs) -> torch.Tensor:
        batch = trainer._prepare_inputs(trainer.data_collator([_features(pair) for pair in pairs]))
        loss = trainer.compute_loss(trainer.model, batch)
        loss.backward()
        return loss.detach()

    return step


def _features(pair) -> dict[str, list[int]]:
    """A row as TRL's tokenization leaves it."""
    made = {"prompt_input_ids": pair.chosen[: pair.prompt].tolist(), "prompt_attention_mask": [1] * pair.prompt}
    for name, ids in (("chosen", pair.chosen.tolist()), ("rejected", pair.rejected.tolist())):
        made |= {f"{name}_input_ids": ids, f"{name}_attention_mask": [1] * len(ids),
                 f"{name}_labels": [-100] * pair.prompt + ids[pair.prompt:]}
    return made


def reference_rows(tokenizer: PreTrainedTokenizerBase, found: list[Pair], max_length: int) -> list[dict]:
    """The pairs as TRL's trainer prepares them, without a trainer."""
    trainer = object.__new__(ORPOTrainer)
    trainer.processing_class, trainer.max_length, trainer.is_encoder_decoder = tokenizer, max_length, False
    rows = Dataset.from_list([pair.row() for pair in found])
    rows = rows.map(maybe_extract_prompt).map(maybe_apply_chat_template, fn_kwargs={"processing_class": tokenizer})
    return list(rows.map(trainer.tokenize_row))
