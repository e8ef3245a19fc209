"""A run's settings in transformers' words."""

from pathlib import Path

import torch
from transformers import TrainingArguments

from studio.engine.model import compute_dtype, device
from studio.settings import Settings


def arguments(settings: Settings, folder: Path, warmup: int | None = None) -> TrainingArguments:
    """What transformers' Trainer is told. `warmup` overrules the settings' number of steps with a rising rate."""
    training, precision = settings.training, compute_dtype(settings.model)
    on_cpu = device(settings.model).type == "cpu"
    # Fused on a GPU: one kernel for all weights. Not on a CPU, where a resumed run must match the original bit for bit.
    optimizer = "adamw_torch_fused" if training.optimizer == "adamw_torch" and not on_cpu else training.optimizer
    made = TrainingArguments(
        output_dir=str(folder / "trainer"),
        learning_rate=training.learning_rate, lr_scheduler_type=training.schedule,
        warmup_steps=training.warmup_steps if warmup is None else warmup,
        # A whole optimizer step is one batch of the loader's: the passes within are ours.
        per_device_train_batch_size=training.batch_size * training.accumulation, gradient_accumulation_steps=1,
        num_train_epochs=training.epochs, max_steps=training.max_steps or -1, optim=optimizer,
        weight_decay=training.weight_decay, max_grad_norm=training.max_grad_norm,
        bf16=precision is torch.bfloat16, fp16=precision is torch.float16 and not on_cpu, use_cpu=on_cpu,
        seed=training.seed, report_to="none", logging_steps=1, logging_nan_inf_filter=False,
        save_strategy="no", eval_strategy="no", disable_tqdm=True, remove_unused_columns=False,
        dataloader_pin_memory=False)
    # With several visible cards transformers would multiply the batch and wrap the model in DataParallel.
    made._n_gpu = min(made.n_gpu, 1)
    return made
