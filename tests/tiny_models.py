"""Tiny models of many families with random weights, all with the practice model's tokenizer."""

import shutil
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from studio.engine.model import honour_softcap
from studio.practice import MODEL

VOCABULARY = 2560
SIZES = {"vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512, "initializer_range": 0.1,
         "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0}


def tiny_config(family: str, **changes) -> PretrainedConfig:
    """A family's config at tiny scale. `changes` are its own options."""
    return AutoConfig.for_model(family, **SIZES | changes)


def tiny_model(family: str, seed: int = 0, **changes) -> PreTrainedModel:
    """A model of that family with random weights, in float32 and in eval mode."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(family, **changes), dtype=torch.float32).eval()
    honour_softcap(model)
    return model


def saved(model: PreTrainedModel, folder: Path) -> Path:
    """The model in a folder together with the practice tokenizer, to be loaded by name."""
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(MODEL / name, folder / name)
    return folder
