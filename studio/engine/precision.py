"""What to compute on, and how precisely."""

import torch

from studio.errors import StudioError
from studio.settings import ModelSettings

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def device(settings: ModelSettings) -> torch.device:
    """What to compute on. Raises StudioError if a GPU is asked for and there is none."""
    if settings.device == "gpu" and not torch.cuda.is_available():
        raise StudioError("A GPU was asked for and this machine has none that torch can use. "
                          "Set Device to auto or cpu, or start the studio on a machine with a GPU.")
    return torch.device("cuda" if settings.device != "cpu" and torch.cuda.is_available() else "cpu")


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
