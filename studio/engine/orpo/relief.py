"""When a step does not fit the memory: what is let go of, and that the same step, taken again, draws the same random numbers."""

import gc
from typing import Protocol
from weakref import WeakSet

import torch

WORDS = ("DefaultCPUAllocator", "can't allocate memory", "not enough memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED",
         "CUDA driver error: out of memory", "Triton Error [CUDA]: out of memory", "HIP error: out of memory", "Messsage: out of memory")
"""Messages of other errors that mean out of memory: of the CPU allocator, of CUDA, cuBLAS and the CUDA driver, of Triton as it loads a
kernel, and of ROCm, where Triton spells its message so."""


class Holder(Protocol):
    def let_go(self) -> None:
        """Release all tensors that are kept from one module's call to the next."""


HOLDERS: WeakSet[Holder] = WeakSet()
"""Objects that hold tensors between calls, and with them the graph of a pass that failed there."""


def ran_out(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, of a card or of the machine."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in WORDS)


def release() -> None:
    """Give back what nobody holds any more, so that the next attempt finds it."""
    for holder in HOLDERS:
        holder.let_go()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Draws:
    """The random numbers that are still to come, remembered: LoRA's dropout must draw the same in a step's second attempt."""

    def __init__(self):
        self._cpu = torch.get_rng_state()
        self._cards = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []

    def again(self) -> None:
        """Let the same numbers come again."""
        torch.set_rng_state(self._cpu)
        if self._cards:
            torch.cuda.set_rng_state_all(self._cards)


def held() -> str:
    """What the card holds and has, for a message; nothing on the CPU."""
    if not torch.cuda.is_available():
        return ""
    free, total = torch.cuda.mem_get_info()
    return f" ({(total - free) / 1e9:.1f} of {total / 1e9:.1f} GB were in use)"
