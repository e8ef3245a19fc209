"""A merged model's tensors under llama.cpp's names, one at a time: a model is never in memory whole."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors import safe_open
from transformers import PretrainedConfig

from studio.engine.ggml import shape
from studio.engine.ggml.shape import INSTEAD
from studio.errors import StudioError

Type = gguf.GGMLQuantizationType
TURNED = {"q_proj.weight": "num_attention_heads", "k_proj.weight": "num_key_value_heads"}
"""Weights of which llama.cpp has the rows of a head in another order, and how many heads they have."""
BLOCK = 32
"""Weights that share a scale in Q8_0."""


@dataclass(frozen=True)
class Tensor:
    """One tensor: what it is called there, where it lies here, its shape, and how its numbers are written."""

    name: str
    key: str
    path: Path | None
    shape: tuple[int, ...]
    type: Type

    @property
    def bytes(self) -> int:
        return math.prod(gguf.quant_shape_to_byte_shape(self.shape, self.type))


def listed(folder: Path, config: PretrainedConfig, wanted: Type) -> list[Tensor]:
    """All tensors of a merged model, in the order of their names. Raises StudioError for one that has no name there."""
    names = gguf.get_tensor_name_map(shape.kind(config), config.num_hidden_layers)
    found = []
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for key in sorted(file.keys()):
                name, size = names.get_name(key, try_suffixes=(".weight", ".bias")), tuple(file.get_slice(key).get_shape())
                if name is None:
                    raise StudioError(f"{key} of the merged model has no name in llama.cpp, so nothing was written. {INSTEAD}")
                found.append(Tensor(name, key, path, size, _type(size, wanted)))
    slower = shape.slower_turning(config)
    if slower is not None:
        found.append(Tensor("rope_freqs.weight", "", None, tuple(slower.shape), Type.F32))
    return found


def _type(size: tuple[int, ...], wanted: Type) -> Type:
    """Norms and biases are computed with as float32; rows that are no whole number of blocks keep 16 bits."""
    if len(size) == 1:
        return Type.F32
    return Type.F16 if wanted == Type.Q8_0 and size[-1] % BLOCK else wanted


def announce(writer: gguf.GGUFWriter, tensors: list[Tensor]) -> None:
    """Tell a file which tensors it will hold."""
    for tensor in tensors:
        size = gguf.quant_shape_to_byte_shape(tensor.shape, tensor.type)  # as bytes are all types told in the same way
        writer.add_tensor_info(tensor.name, size, np.dtype(np.uint8), tensor.bytes, raw_dtype=tensor.type)


def read(tensors: list[Tensor], config: PretrainedConfig) -> Iterator[np.ndarray]:
    """Their numbers as they are written, one tensor after the other."""
    for tensor in tensors:
        if tensor.path is None:
            weight = shape.slower_turning(config)
        else:
            with safe_open(tensor.path, framework="pt") as file:
                weight = file.get_tensor(tensor.key)
        heads = next((heads for end, heads in TURNED.items() if tensor.key.endswith(end)), None)
        if heads and shape.kind(config) == gguf.MODEL_ARCH.LLAMA:
            weight = _as_pairs(weight, getattr(config, heads))
        yield np.ascontiguousarray(gguf.quants.quantize(weight.float().numpy(), tensor.type))


def _as_pairs(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """A head's rows with the two numbers that turn together side by side; transformers has their halves one after the other."""
    rows, *rest = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, *rest).transpose(1, 2).reshape(rows, *rest)
