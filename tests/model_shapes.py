"""Shapes of published models, by their configs and the names of their tensors: what the Hub would tell, without it."""

from studio.shape import Shape, described

MODELS = {  # hidden, layers, heads, key heads, width of a head, intermediate, vocabulary, tied
    "Qwen/Qwen2.5-1.5B-Instruct": (1536, 28, 12, 2, 128, 8960, 151936, True),
    "Qwen/Qwen2.5-7B-Instruct": (3584, 28, 28, 4, 128, 18944, 152064, False),
    "Qwen/Qwen2.5-14B-Instruct": (5120, 48, 40, 8, 128, 13824, 152064, False),
    "Qwen/Qwen2.5-32B-Instruct": (5120, 64, 40, 8, 128, 27648, 152064, False),
    "meta-llama/Meta-Llama-3-8B": (4096, 32, 32, 8, 128, 14336, 128256, False),
    "meta-llama/Llama-3.1-8B-Instruct": (4096, 32, 32, 8, 128, 14336, 128256, False),
    "meta-llama/Llama-3.3-70B-Instruct": (8192, 80, 64, 8, 128, 28672, 128256, False),
}


def shape_of(name: str) -> Shape:
    """The shape of a published model in 16 bits."""
    hidden, layers, heads, key_heads, width, inner, vocabulary, tied = MODELS[name]
    sizes = {"self_attn.q_proj": (heads * width, hidden), "self_attn.k_proj": (key_heads * width, hidden),
             "self_attn.v_proj": (key_heads * width, hidden), "self_attn.o_proj": (hidden, heads * width),
             "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "mlp.down_proj": (hidden, inner),
             "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,)}
    tensors = {f"model.layers.{layer}.{part}.weight": (size, "BF16") for layer in range(layers) for part, size in sizes.items()}
    outside = ("model.embed_tokens",) if tied else ("model.embed_tokens", "lm_head")
    tensors |= {f"{part}.weight": ((vocabulary, hidden), "BF16") for part in outside} | {"model.norm.weight": ((hidden,), "BF16")}
    return described({"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": key_heads,
                      "intermediate_size": inner, "vocab_size": vocabulary, "tie_word_embeddings": tied}, tensors)
