"""Python's garbage collector, kept from going over libraries again and again while they are imported.

What torch, transformers and Gradio leave in memory stays until the process ends, and looking for garbage in it takes time: a run of
two steps with the practice model took 8.8 seconds from launch to end at Python's usual pace, and takes 6.7.
"""

import atexit
import gc

USUAL = gc.get_threshold()
WHILE_LOADING = (50_000, 20, 100)
"""How many new objects, and passes over them, come before the next pass over younger, older and all objects."""


def load() -> None:
    """Look for garbage seldom from now on, since libraries are about to be imported, and not at all when the process ends.

    Programs that stay at work or train call `settle` once they have loaded; the others keep this pace to their end.
    """
    gc.set_threshold(*WHILE_LOADING)
    atexit.register(gc.freeze)


def settle() -> None:
    """Leave what is there out of every later pass, and look at the usual pace: in a step's garbage whole tensors may wait to be freed."""
    gc.freeze()
    gc.set_threshold(*USUAL)
