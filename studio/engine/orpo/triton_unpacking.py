"""A 4-bit weight unpacked by one Triton kernel: bitsandbytes takes three where a weight's constants are quantized as well."""

import torch
import triton
import triton.language as tl
from torch import nn

BYTES = 1024
"""Packed bytes that one program reads; each holds two weights, the first in its upper half."""


@triton.jit
def _unpack(packed, code, constants, second_code, second_constants, offset, out, count, size: tl.constexpr, second_size: tl.constexpr,
            NESTED: tl.constexpr, BYTES: tl.constexpr):
    """Weights are code[number] * constant of their block of `size`; nested constants are themselves code * constant + offset."""
    at = tl.program_id(0).to(tl.int64) * BYTES + tl.arange(0, BYTES)
    inside = at < count
    byte = tl.load(packed + at, inside, other=0).to(tl.int32)
    block = 2 * at // size
    if NESTED:
        constant = tl.load(second_code + tl.load(constants + block, inside, other=0).to(tl.int32))
        constant = constant * tl.load(second_constants + block // second_size, inside, other=0.0) + tl.load(offset)
    else:
        constant = tl.load(constants + block, inside, other=0.0)
    first, second = tl.load(code + (byte >> 4)) * constant, tl.load(code + (byte & 15)) * constant
    place = tl.program_id(0).to(tl.int64) * 2 * BYTES + tl.arange(0, 2 * BYTES)
    tl.store(out + place, tl.interleave(first, second).to(out.dtype.element_ty), place < 2 * count)


def unpack(base: nn.Module) -> torch.Tensor:
    """The weight of a 4-bit layer of bitsandbytes, (outputs, inputs), in the type that it was quantized from.

    Equal to bitsandbytes' to the last bit: products and sums are not fused.
    """
    state = base.weight.quant_state
    packed, out = base.weight.detach().view(-1), torch.empty(state.shape, dtype=state.dtype, device=base.weight.device)
    second = state.state2 if state.nested else state  # its own where there is none: not read
    offset = state.offset if state.nested else state.absmax
    grid = (triton.cdiv(packed.numel(), BYTES),)
    _unpack[grid](packed, state.code, state.absmax, second.code, second.absmax, offset, out, packed.numel(),
                  state.blocksize, second.blocksize, state.nested, BYTES, enable_fp_fusion=False)
    return out
