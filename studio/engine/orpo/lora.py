"""LoRA layers whose adapter is added within the matrix product, instead of in two passes more over the layer's output.

PEFT computes base(x) + B(A(x)) * scaling: the product with B is written out, multiplied and added, three times the size
of the output. Here the scaling goes to the narrow A(x) and the sum into a product.
"""

from functools import partial

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.nn.functional import linear

KINDS = {"Linear", "Linear4bit"}


def fuse(model: PeftModel) -> int:
    """Fuse every layer of which it is known to be the same. Returns how many; the others stay PEFT's."""
    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer) and _is_plain(layer)]
    for layer in layers:
        layer.forward = partial(_forward, layer)
    return len(layers)


def _is_plain(layer: LoraLayer) -> bool:
    """One ordinary adapter on an ordinary or a 4-bit layer: no variant such as DoRA, no bias of its own, nothing merged."""
    return (type(layer).__name__ in KINDS and type(layer.base_layer).__name__ in KINDS and len(layer.lora_A) == 1
            and list(layer.lora_A) == layer.active_adapters and not layer.lora_variant
            and layer.lora_B[layer.active_adapters[0]].bias is None and not layer.merged)


def _forward(layer: LoraLayer, x: torch.Tensor, *inputs, **options) -> torch.Tensor:
    cast = torch.is_autocast_enabled(x.device.type)
    dtype = torch.get_autocast_dtype(x.device.type) if cast else x.dtype
    if inputs or options or layer.disable_adapters or layer.merged or len(layer.active_adapters) != 1:
        return type(layer).forward(layer, x, *inputs, **options)
    name = layer.active_adapters[0]
    narrow, wide = layer.lora_A[name].weight, layer.lora_B[name].weight
    if not cast and narrow.dtype != dtype:
        return type(layer).forward(layer, x)
    rows = x.flatten(0, -2)
    inner = linear(layer.lora_dropout[name](rows).to(dtype), narrow.to(dtype)) * layer.scaling[name]
    outer = wide.to(dtype).t()
    if not cast and type(layer.base_layer) is nn.Linear and layer.base_layer.weight.dtype == dtype:
        # The large product comes last: a layer that is recomputed on the way back stops at the last thing it has to keep,
        # which is before its last large product, and is spared it.
        weight, bias = layer.base_layer.weight, layer.base_layer.bias
        narrow_part = inner @ outer if bias is None else torch.addmm(bias, inner, outer)
        added = narrow_part.addmm_(rows, weight.t())
    else:
        added = torch.addmm(layer.base_layer(rows).to(dtype), inner, outer)
    return added.view(*x.shape[:-1], -1)
