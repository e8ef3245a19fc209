"""Whether the weights that were loaded are those that the files hold: every key accounted for, every type and scale a normal one.

A config that says nothing of its quantization, or the config of another model, leaves a model that loads, trains and is wrong.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import PreTrainedModel

from studio.engine import snapshot
from studio.errors import StudioError

LARGEST = 8.0
"""Root mean square of the weights of a matrix, above which they are numbers that wait for a scale: those of published models stay
below 1, numbers of 8 bits lie near 40 or 70, those of 4 bits near 8 (0 to 15) or 4.6 (-8 to 7)."""
LARGEST_OF_ALL = 2.0
"""The same of the median matrix: one may be odd, all of them are not."""
SAMPLED = 8
"""Rows of a matrix that are looked at."""
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
NO_WEIGHT = re.compile(r"(inv_freq|masked_bias|position_ids|attn\.bias|attention\.bias)$")
"""Tables that older files store and newer models work out: positions and masks."""
LAYER = re.compile(r"(^|\.)\d+(\.|$)")


def account_for(found: Mapping[str, object], model: PreTrainedModel, name: str) -> str:
    """What of the files found no place in the model, in words, or nothing. `found` is what from_pretrained says of its loading.

    Raises StudioError where the model lacks weights, or passes over some that belong to a part which it has.
    """
    missing, unexpected = sorted(found["missing_keys"]), sorted(found["unexpected_keys"])
    if missing:
        raise StudioError(f"{name} lacks {len(missing)} of the weights that its config asks for, such as {missing[0]}. "
                          "Fetch it again, or choose another model.")
    if wrong := sorted(map(str, [*found.get("mismatched_keys", ()), *found.get("error_msgs", ())])):
        raise StudioError(f"{name} holds weights of another size than its config says, such as {wrong[0][:120]}. "
                          "Fetch it again, or choose another model.")
    parts = {path for path, _ in model.named_modules() if path}
    beside = [key for key in unexpected if not NO_WEIGHT.search(key) and LAYER.search(_part_of(key, parts, model.base_model_prefix))]
    if beside:
        raise StudioError(f"{name} holds {len(beside)} weights that have no place in the layers which its config describes, such as "
                          f"{beside[0]}, so the model would not be what its files hold. Its config is that of another model, or it comes "
                          "quantized: choose a repository whose config and weights belong together, in 16 or 32 bits.")
    others = [key for key in unexpected if not NO_WEIGHT.search(key)]
    return f"{len(others):,} tensors of {name} are not part of the language model that is trained, such as {others[0]}." if others else ""


def _part_of(key: str, parts: set[str], prefix: str) -> str:
    """The innermost part of the model to which a weight of that name belongs; empty for none."""
    while "." in key:
        key = key.rpartition(".")[0]
        found = next((path for path in (key, f"{prefix}.{key}", key.removeprefix(f"{prefix}.")) if path in parts), "")
        if found:
            return found
    return ""


def refuse_other_types(model: PreTrainedModel, name: str, quantized: bool) -> None:
    """Raises StudioError for weights that are no floating-point numbers of 16 or 32 bits, but for those that the studio `quantized`."""
    for path, weight in model.named_parameters():
        whole = not weight.dtype.is_floating_point
        if weight.dtype not in FLOATS and not (quantized and whole):
            raise StudioError(f"{path} of {name} was loaded as {str(weight.dtype).removeprefix('torch.')}, which is not a weight that can "
                              "be trained on. Choose the model from which it was made, with weights in 16 or 32 bits.")


def refuse_odd_scales(folder: Path, name: str) -> None:
    """Raises StudioError for matrices whose numbers are too large to be weights: they wait for scales that nobody applies.

    A few rows of each matrix are read from the files.
    """
    sizes = dict(_sizes(folder, name))
    odd = max(sizes, key=sizes.get, default="")
    if odd and (sizes[odd] > LARGEST or torch.tensor(list(sizes.values())).median() > LARGEST_OF_ALL):
        raise StudioError(f"The weights of {name} are out of every normal scale: those of {odd} are {sizes[odd]:.0f} in the root mean "
                          "square, where 1 is much. They were most likely quantized and have lost their scales; choose the model from "
                          "which they were made.")


def _sizes(folder: Path, name: str) -> Iterator[tuple[str, float]]:
    """The root mean square of the sampled rows of each matrix inside a layer."""
    for file in sorted(snapshot.weight_files(folder, name)):
        with safe_open(folder / file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118 (no mapping)
                if LAYER.search(key) and key.endswith("weight") and len(shape := tensors.get_slice(key).get_shape()) == 2:
                    yield key, _size(tensors.get_slice(key), shape)


def _size(matrix, shape: Sequence[int]) -> float:
    rows = matrix[: min(SAMPLED, shape[0])].float()
    return float(rows.square().mean().sqrt()) if rows.numel() else 0.0
