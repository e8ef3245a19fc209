"""What llama.cpp is told of a network: its kind and sizes. What it would compute in another way is refused.

The keys are those of the GGUF specification (github.com/ggml-org/ggml, docs/gguf.md).
"""

import gguf
import torch
from transformers import PretrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from studio.errors import StudioError

KINDS = {"llama": gguf.MODEL_ARCH.LLAMA, "mistral": gguf.MODEL_ARCH.LLAMA,
         "qwen2": gguf.MODEL_ARCH.QWEN2, "qwen3": gguf.MODEL_ARCH.QWEN3}
"""Model types of transformers, and as what llama.cpp computes them."""
INSTEAD = "Take the merged model, which every program with transformers reads, or convert it with llama.cpp's own converter."


def kind(config: PretrainedConfig) -> gguf.MODEL_ARCH:
    """As what llama.cpp computes a network. Raises StudioError for what it would compute otherwise, or the studio does not know."""
    refuse_unknown(config.model_type)
    scaling = config.rope_parameters.get("rope_type", "default")
    odd = {"its activation is not SiLU": config.hidden_act != "silu",
           "its queries and keys have biases": config.model_type in ("llama", "mistral") and getattr(config, "attention_bias", False),
           "its layers look back to different distances": config.model_type.startswith("qwen") and bool(config.use_sliding_window),
           f"its positions are scaled in the way {scaling}": scaling not in ("default", "llama3")}
    if any(odd.values()):
        why = " and ".join(reason for reason, holds in odd.items() if holds)
        raise StudioError(f"This model is not written as GGUF, because {why}. {INSTEAD}")
    return KINDS[config.model_type]


def refuse_unknown(model_type: object) -> None:
    """Raises StudioError for a kind of model that the studio does not write, before transformers looks for code to read its config."""
    if model_type not in KINDS:
        raise StudioError(f"Models of the kind {str(model_type)[:60]} are not written as GGUF; {', '.join(KINDS)} are. {INSTEAD}")


def head_size(config: PretrainedConfig) -> int:
    """Numbers of a head's query."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def write(writer: gguf.GGUFWriter, config: PretrainedConfig) -> None:
    """All sizes, as keys of the file."""
    window = getattr(config, "sliding_window", None) if config.model_type == "mistral" else None
    writer.add_context_length(min(config.max_position_embeddings, window or config.max_position_embeddings))
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_size(config))
    writer.add_value_length(head_size(config))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head_size(config))
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)


def slower_turning(config: PretrainedConfig) -> torch.Tensor | None:
    """By what each pair of numbers turns slower than without scaling, shape (head size / 2,), float32; None without scaling."""
    scaling = config.rope_parameters.get("rope_type", "default")
    if scaling == "default":
        return None
    scaled, _ = ROPE_INIT_FUNCTIONS[scaling](config, torch.device("cpu"))
    plain = config.rope_parameters["rope_theta"] ** (-torch.arange(0, head_size(config), 2, dtype=torch.float64) / head_size(config))
    return (plain / scaled.double()).float()
