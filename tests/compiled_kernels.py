"""The Triton kernels compiled to machine code for cards that are not here: python -m tests.compiled_kernels CAPABILITY...

Each function runs on meta tensors of an 8B model's sizes with its launches recorded; what would be launched is compiled, with the
specialization that Triton would choose. Writes a JSON object per kernel: registers of a thread, bytes that were spilled to memory,
bytes of shared memory, and how many single numbers it reads after the last sum over its threads, the last point at which they wait
for each other.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.compiler.compiler import make_backend
from triton.runtime.jit import JITFunction, create_function_from_signature

from studio.engine.orpo import triton_kernels as kernels
from studio.engine.orpo import triton_unpacking as unpacking
from studio.engine.orpo.arithmetic import Sums, Tile
from studio.engine.orpo.head import Frozen

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
ROWS, HIDDEN, INTERMEDIATE, HEADS, WIDTH, WORDS = 2048, 4096, 14336, 32, 128, 8192


class Launches:
    """Stands for a kernel: hands what would be launched to `take` as (types, constants, attributes, options) by parameter."""

    def __init__(self, kernel: JITFunction, capability: int, take: Callable[..., None]):
        self.backend, self.take = make_backend(GPUTarget("cuda", capability, 32)), take
        self.names = [parameter.name for parameter in kernel.params]
        self.bind = create_function_from_signature(kernel.signature, kernel.params, self.backend)

    def __getitem__(self, grid):
        return self.launched

    def launched(self, *given, **options) -> None:
        _, kinds, options = self.bind(*given, **options)
        self.take({name: kind for name, (kind, _) in zip(self.names, kinds, strict=True)},
                  {name: value for name, (kind, value) in zip(self.names, kinds, strict=True) if kind == "constexpr"},
                  {(place,): self.backend.parse_attr(value) for place, (_, value) in enumerate(kinds) if isinstance(value, str)}, options)


@contextmanager
def recorded(capability: int, take: Callable[..., None]) -> Iterator[None]:
    """Context in which no kernel is launched: `take(kernel, types, constants, attributes, options)` is called instead."""
    own = [(home, name, one) for home in (kernels, unpacking) for name, one in vars(home).items()
           if isinstance(one, JITFunction) and name not in ("_activation", "_logits_of")]
    try:
        for home, name, kernel in own:
            setattr(home, name, Launches(kernel, capability, partial(take, kernel)))
        yield
    finally:
        for home, name, kernel in own:
            setattr(home, name, kernel)


def compiled(capability: int) -> list[dict]:
    """Every kernel, in each form in which an 8B model's run launches it on a card of this compute capability."""
    found: list[dict] = []

    def take(kernel: JITFunction, types: dict, constants: dict, attributes: dict, options: dict) -> None:
        source, target = ASTSource(kernel, types, constants, attributes), GPUTarget("cuda", capability, 32)
        made = triton.compile(source, target=target, options=options)
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(made.asm["cubin"])
            file.flush()
            said = subprocess.run([CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
        used = {name: int(re.search(rf"{name}:(\d+)", said)[1]) for name in ("REG", "STACK", "SHARED")}
        _, sums, after = made.asm["ttgir"].rpartition("tt.reduce.return")
        found.append({"kernel": kernel.__name__, "capability": capability, "constants": constants, "registers": used["REG"],
                      "spilled": used["STACK"], "shared": used["SHARED"], "late": len(re.findall(r"tt\.load .* : !tt\.ptr", after)) if sums else 0})

    with recorded(capability, take):
        for dtype in (torch.bfloat16, torch.float32) if capability >= 80 else (torch.float16, torch.float32):
            _launched(dtype)
    return found


def forms(rows: int) -> set[str]:
    """The forms in which every kernel is compiled for a pass of as many tokens."""
    found: set[str] = set()
    with recorded(90, lambda kernel, *made: found.add(str((kernel.__name__, *made)))):
        _launched(torch.bfloat16, rows, "cpu")
    return found


def _launched(dtype: torch.dtype, rows: int = ROWS, device: str = "meta") -> None:
    """All functions, forward and backward, on tensors that hold no numbers."""
    def empty(*shape: int, dtype: torch.dtype = dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    gate, up = empty(rows, INTERMEDIATE), empty(rows, INTERMEDIATE)
    for kind in ("silu", "gelu"):
        kernels.gated(gate, up, kind)
        for again in (True, False):
            kernels.gated_backward(empty(rows, INTERMEDIATE), gate, up, kind, again)
    for width, scale in ((HIDDEN, dtype), (WIDTH, dtype), (HIDDEN, torch.float32)):
        x = empty(rows, width).requires_grad_()
        kernels.norm(empty(width, dtype=scale), 1e-6, x).backward(empty(rows, width))
    queries = empty(1, HEADS, rows, WIDTH).requires_grad_()
    rotated, _ = kernels.rotary(queries, empty(1, HEADS // 4, rows, WIDTH), *[empty(1, rows, WIDTH)] * 2)
    rotated.backward(empty(1, HEADS, rows, WIDTH))
    for bias, softcap in ((None, None), (empty(WORDS), 30.0)):
        sums, targets = Sums.of(rows, torch.device(device)), empty(2 * rows, dtype=torch.int64)[rows:]
        for wanted in (True, False):
            kernels.tile(Tile(empty(rows, WORDS, dtype=torch.float32), targets, 0, sums,
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
