"""An ORPO trainer for a base and a fresh adapter. The only place that knows whose trainer it is.

Today it is TRL's, from its experimental folder, which may move: the import is here and nowhere else.
"""

from pathlib import Path

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, Trainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from studio.engine.model import compute_dtype, device, lora_config
from studio.pairs import Pair
from studio.settings import Settings


def build(settings: Settings, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase,
          found: list[Pair], folder: Path) -> Trainer:
    """A trainer whose `train()` takes the steps that the settings ask for; its model carries the new adapter.

    The pairs are tokenized here. Nothing is written to `folder` unless a tracker does.
    """
    trainer = ORPOTrainer(model=model, args=arguments(settings, folder), processing_class=tokenizer,
                          train_dataset=Dataset.from_list([pair.row() for pair in found]),
                          peft_config=lora_config(settings.adapter))
    trainer.remove_callback(PrinterCallback)  # the event log holds every step already
    return trainer


def arguments(settings: Settings, folder: Path) -> ORPOConfig:
    """The settings in the trainer's words."""
    training, precision = settings.training, compute_dtype(settings.model)
    on_cpu = device(settings.model).type == "cpu"
    return ORPOConfig(
        output_dir=str(folder / "trainer"), beta=training.beta, max_length=training.max_length,
        learning_rate=training.learning_rate, lr_scheduler_type=training.schedule, warmup_steps=training.warmup_steps,
        per_device_train_batch_size=training.batch_size, gradient_accumulation_steps=training.accumulation,
        num_train_epochs=training.epochs, max_steps=training.max_steps or -1, optim=training.optimizer,
        weight_decay=training.weight_decay, max_grad_norm=training.max_grad_norm,
        gradient_checkpointing=training.gradient_checkpointing,
        bf16=precision is torch.bfloat16, fp16=precision is torch.float16 and not on_cpu, use_cpu=on_cpu,
        seed=training.seed, report_to=training.report_to, logging_steps=1, logging_nan_inf_filter=False,
        save_strategy="no", eval_strategy="no", disable_tqdm=True, remove_unused_columns=False,
        dataloader_pin_memory=not on_cpu,
        # TRL's default silently switches off the LoRA dropout that the settings ask for.
        disable_dropout=False)
