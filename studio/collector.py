"""Python's garbage collector, kept from going over libraries again and again while they are imported.

What torch, transformers and Gradio leave in memory stays until the process ends. At Python's usual pace a third of the time until
the first step goes into looking for garbage in it, and another second at the end.
"""

import atexit
import gc

USUAL = gc.get_threshold()
WHILE_LOADING = (50_000, 20, 100)
"""How many new objects, and passes over them, come before the next pass over younger, older and all objects."""


def load() -> None:
    """Look for garbage seldom: libraries are about to be imported."""
    gc.set_threshold(*WHILE_LOADING)
    atexit.register(gc.freeze)


def settle() -> None:
    """Leave what is there out of every later pass, and look at the usual pace: in a step's garbage whole tensors may wait to be freed."""
    gc.freeze()
    gc.set_threshold(*USUAL)
