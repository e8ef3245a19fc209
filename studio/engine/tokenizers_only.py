"""For programs that make tokens and compute nothing: transformers without torch.

Transformers imports torch wherever it is installed, which takes longer than all else that such a program does. Where it is not,
transformers offers tokenizers, configurations and files, and these are all that is needed.
"""

import sys


def import_transformers() -> None:
    """Import transformers as if torch were not installed: it looks once, and remembers what it found.

    For a program of its own, before anything else imports transformers. For all other libraries torch is there as before: datasets
    asks whether it has been imported. Raises RuntimeError where transformers or torch was imported before.
    """
    if "transformers" in sys.modules or "torch" in sys.modules:
        raise RuntimeError("Transformers or torch was imported before.")
    sys.modules["torch"] = None
    try:
        from transformers.utils import is_torch_available

        is_torch_available()
    finally:
        del sys.modules["torch"]
