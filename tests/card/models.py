"""Llamas with random weights, made on the device itself, with an adapter that already says something."""

import gc
import shutil
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.initialization import no_init_weights

from studio.practice import MODEL

VOCABULARY = 128_256
SHAPES = {
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8},
    "3b": {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24, "num_key_value_heads": 8,
           "tie_word_embeddings": True},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
           "tie_word_embeddings": True},
    "mid": {"hidden_size": 1536, "intermediate_size": 4096, "num_hidden_layers": 16, "num_attention_heads": 12, "num_key_value_heads": 4,
            "tie_word_embeddings": True},
    "small": {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2},
    "tiny": {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2},
}


def model_of(shape: str, base: str, device, dtype=torch.bfloat16, vocabulary: int = VOCABULARY, dropout: float = 0.0):
    """A Llama of that shape with random weights and an adapter of rank 16 that already says something."""
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=vocabulary, max_position_embeddings=8192, pad_token_id=0, rope_theta=500_000.0, **SHAPES[shape])
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with no_init_weights(), torch.device(device):
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    model.tie_weights()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.02) if weight.ndim > 1 else weight.fill_(1)
    model.requires_grad_(False)
    if base == "nf4":
        quantize(model, device, dtype)
    tuned = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, lora_dropout=dropout, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.01)
    return tuned.train()


def quantize(model, device, dtype) -> None:
    """Every linear layer but the head in NF4 with double quantization, on the device, one after the other."""
    import bitsandbytes as bnb

    for owner in list(model.modules()):
        for name, layer in list(owner.named_children()):
            if isinstance(layer, torch.nn.Linear) and name != "lm_head":
                small = bnb.nn.Linear4bit(layer.in_features, layer.out_features, bias=False, compute_dtype=dtype, quant_type="nf4", device="meta")
                small.support_avx512bf16_for_cpu = False
                small.weight = bnb.nn.Params4bit(layer.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4")
                small.weight._quantize(layer.weight.device)
                small.quant_state = small.weight.quant_state
                setattr(owner, name, small)
                layer.weight = None
    model.is_loaded_in_4bit = True
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()


def saved(shape: str, folder: Path) -> Path:
    """A folder with a Llama of that shape in bfloat16, with random weights and the practice model's tokenizer. Uses no card."""
    config = LlamaConfig(vocab_size=2560, max_position_embeddings=4096, bos_token_id=None, eos_token_id=2, pad_token_id=0, **SHAPES[shape])
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    # Drawn once and read from other places for each matrix: billions of random numbers would take minutes on a CPU.
    pool = torch.from_numpy(np.random.default_rng(0).standard_normal(1 << 25, dtype=np.float32)).mul_(0.02).to(torch.bfloat16)
    tensors, start = {}, 0
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            tensors[name] = torch.ones(weight.shape, dtype=torch.bfloat16)
            continue
        start = (start + 7_654_321) % (len(pool) - weight.numel())
        tensors[name] = pool[start : start + weight.numel()].view(weight.shape).clone()
    tensors["model.embed_tokens.weight"][:3] = 0  # special tokens, so that greedy answers have some text
    folder.mkdir(parents=True)
    config.architectures, config.dtype = ["LlamaForCausalLM"], torch.bfloat16
    config.save_pretrained(folder)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        shutil.copy(MODEL / name, folder / name)
    return folder
