"""The Triton kernels compiled to machine code for cards that are not here: python -m tests.compiled_kernels CAPABILITY...

Each function runs on meta tensors of an 8B model's sizes with its launches recorded; what would be launched is compiled. Writes a
JSON object per kernel: registers of a thread, bytes that were spilled to memory, bytes of shared memory.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from studio.engine.orpo import triton_kernels as kernels
from studio.engine.orpo import triton_unpacking as unpacking
from studio.engine.orpo.arithmetic import Sums, Tile
from studio.engine.orpo.head import Frozen

TYPES = {torch.uint8: "*u8", torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.int64: "*i64"}
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
ROWS, HIDDEN, INTERMEDIATE, HEADS, WIDTH, WORDS = 2048, 4096, 14336, 32, 128, 8192


class Recorded:
    """Stands for a kernel: compiles it for a card instead of launching it."""

    def __init__(self, kernel: JITFunction, capability: int, found: list[dict]):
        self.kernel, self.capability, self.found = kernel, capability, found

    def __getitem__(self, grid):
        return self.launched

    def launched(self, *given, **options) -> None:
        signature, constants = {}, {}
        for parameter, value in zip(self.kernel.params, given, strict=True):
            if parameter.is_constexpr:
                signature[parameter.name], constants[parameter.name] = "constexpr", value
            else:
                signature[parameter.name] = TYPES[value.dtype] if isinstance(value, torch.Tensor) else "fp32" if isinstance(value, float) else "i32"
        compiled = triton.compile(ASTSource(self.kernel, signature, constants), target=GPUTarget("cuda", self.capability, 32), options=options)
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(compiled.asm["cubin"])
            file.flush()
            said = subprocess.run([CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
        used = {name: int(re.search(rf"{name}:(\d+)", said)[1]) for name in ("REG", "STACK", "SHARED")}
        self.found.append({"kernel": self.kernel.__name__, "capability": self.capability, "constants": {k: v for k, v in constants.items()},
                           "registers": used["REG"], "spilled": used["STACK"], "shared": used["SHARED"]})


def compiled(capability: int) -> list[dict]:
    """Every kernel, in each form in which an 8B model's run launches it on a card of this compute capability."""
    found: list[dict] = []
    own = [(home, name, one) for home in (kernels, unpacking) for name, one in vars(home).items()
           if isinstance(one, JITFunction) and name not in ("_activation", "_logits_of")]
    try:
        for home, name, kernel in own:
            setattr(home, name, Recorded(kernel, capability, found))
        for dtype in (torch.bfloat16, torch.float32) if capability >= 80 else (torch.float16, torch.float32):
            _launched(dtype)
    finally:
        for home, name, kernel in own:
            setattr(home, name, kernel)
    return found


def _launched(dtype: torch.dtype) -> None:
    """All functions, forward and backward, on tensors that hold no numbers."""
    def empty(*shape: int, dtype: torch.dtype = dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    gate, up = empty(ROWS, INTERMEDIATE), empty(ROWS, INTERMEDIATE)
    for kind in ("silu", "gelu"):
        kernels.gated(gate, up, kind)
        for again in (True, False):
            kernels.gated_backward(empty(ROWS, INTERMEDIATE), gate, up, kind, again)
    for width, scale in ((HIDDEN, dtype), (WIDTH, dtype), (HIDDEN, torch.float32)):
        x = empty(ROWS, width).requires_grad_()
        kernels.norm(empty(width, dtype=scale), 1e-6, x).backward(empty(ROWS, width))
    queries = empty(1, HEADS, ROWS, WIDTH).requires_grad_()
    rotated, _ = kernels.rotary(queries, empty(1, HEADS // 4, ROWS, WIDTH), *[empty(1, ROWS, WIDTH)] * 2)
    rotated.backward(empty(1, HEADS, ROWS, WIDTH))
    for bias, softcap in ((None, None), (empty(WORDS), 30.0)):
        sums = Sums(*(empty(ROWS, dtype=torch.float32) for _ in range(4)))
        for wanted in (True, False):
            kernels.tile(Tile(empty(ROWS, WORDS, dtype=torch.float32), empty(ROWS, dtype=torch.int64), 0, sums,
                              Frozen(empty(WORDS, HIDDEN), bias, 1.0, softcap), dtype, wanted))
    for nested in (True, False):
        second = SimpleNamespace(code=empty(256, dtype=torch.float32), absmax=empty(ROWS, dtype=torch.float32), blocksize=256)
        state = SimpleNamespace(shape=(INTERMEDIATE, HIDDEN), dtype=dtype, nested=nested, blocksize=64, code=empty(16, dtype=torch.float32), state2=second,
                                absmax=empty(ROWS, dtype=torch.uint8 if nested else torch.float32), offset=empty(dtype=torch.float32))
        weight = empty(INTERMEDIATE * HIDDEN // 2, 1, dtype=torch.uint8)
        weight.quant_state = state
        unpacking.unpack(SimpleNamespace(weight=weight))


if __name__ == "__main__":
    for asked in sys.argv[1:]:
        for one in compiled(int(asked)):
            print(json.dumps(one))
