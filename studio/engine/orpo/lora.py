"""LoRA layers whose adapter is added within the matrix product, instead of in two passes more over the layer's output.

PEFT computes base(x) + B(A(x)) * scaling: the product with B is written out, multiplied and added, three times the size
of the output. Here the scaling goes to the narrow A(x) and the sum into the product with B.
"""

from functools import partial

import torch
from peft import PeftModel
from peft.tuners.lora import Linear
from torch import nn
from torch.nn.functional import linear


def fuse(model: PeftModel) -> int:
    """Fuse every layer of which it is known to be the same. Returns how many; the others stay PEFT's."""
    layers = [layer for layer in model.modules() if type(layer) is Linear and _is_plain(layer)]
    for layer in layers:
        layer.forward = partial(_forward, layer)
    return len(layers)


def _is_plain(layer: Linear) -> bool:
    """One ordinary adapter on an ordinary layer: no variant such as DoRA, no bias of its own, nothing merged."""
    return (type(layer.base_layer) is nn.Linear and list(layer.lora_A) == layer.active_adapters and len(layer.lora_A) == 1
            and not layer.lora_variant and layer.lora_B[layer.active_adapters[0]].bias is None and not layer.merged)


def _forward(layer: Linear, x: torch.Tensor, *inputs, **options) -> torch.Tensor:
    name = layer.active_adapters[0]
    narrow, wide = layer.lora_A[name].weight, layer.lora_B[name].weight
    if (inputs or options or layer.disable_adapters or layer.merged or len(layer.active_adapters) != 1
            or not x.dtype == narrow.dtype == layer.base_layer.weight.dtype or torch.is_autocast_enabled(x.device.type)):
        return Linear.forward(layer, x, *inputs, **options)
    rows = x.flatten(0, -2)
    inner = linear(layer.lora_dropout[name](rows), narrow) * layer.scaling[name]
    # In place: the product with the frozen weight is this layer's alone, and its gradient needs no copy of it.
    return layer.base_layer(rows).addmm_(inner, wide.t()).view(*x.shape[:-1], -1)
