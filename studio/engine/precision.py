"""What to compute on, and how precisely."""

from functools import cache

import torch

from studio import gpu
from studio.errors import StudioError
from studio.installed import torch_build
from studio.settings import PRACTICE, ModelSettings

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def device(settings: ModelSettings) -> torch.device:
    """What to compute on. Raises StudioError if a GPU is asked for and there is none, or if the machine has one that torch cannot
    use: falling back to the CPU would be silent and hopelessly slow. Only the practice model may.
    """
    if settings.device == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if settings.device == "gpu" or settings.name != PRACTICE:
        _refuse_unused_cards()
    if settings.device == "gpu":
        raise StudioError("A GPU was asked for and this machine has none that torch can use. "
                          "Set Device to auto or cpu, or start the studio on a machine with a GPU.")
    return torch.device("cpu")


def name(settings: ModelSettings) -> str:
    """The name of the device: the card's, or cpu."""
    return torch.cuda.get_device_name() if settings.device != "cpu" and torch.cuda.is_available() else "cpu"


@cache
def _cards() -> list[gpu.Card]:
    return gpu.cards()


def _refuse_unused_cards() -> None:
    found = _cards()
    if not found:
        return
    raise StudioError(gpu.unused(found, torch_build()) or (
        f"This machine has an {found[0].name}, and torch {torch.__version__} for CUDA {torch.version.cuda} does not find it "
        f"with driver {found[0].driver}. Restart the machine, or update the driver; or set Device to cpu."))


def compute_dtype(settings: ModelSettings) -> torch.dtype:
    """The precision of the arithmetic; auto as its caption says."""
    if settings.compute_dtype != "auto":
        return DTYPES[settings.compute_dtype]
    if device(settings).type == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def merge_dtype(settings: ModelSettings) -> torch.dtype:
    """16 bits for a merged model: float16 where it was trained so, else bfloat16."""
    return torch.float16 if settings.compute_dtype == "float16" else torch.bfloat16
