"""How a timer tells that something is to be shown anew: by a hidden text, that is another one whenever what it stands for has changed.

Not by a gr.State: in Gradio 6.31 the browser hears of a changed state only from an event in the queue. The server closes the queue's
stream when no event is pending, and the answer to one that is sent in that moment can be lost: its timer would never tick again.
An event outside the queue is one request and its answer.

All that makes a part of the page show something triggers one event (`gr.on` with LATEST), and a person's act triggers it through the text,
with `again`. Of two events that show the same, the first to be asked may be the last to answer, and what it found would stay.
"""

import secrets
from collections.abc import Hashable

import gradio as gr


def build() -> gr.Textbox:
    """The text, to be rendered here; listen to its `change`."""
    return gr.Textbox(visible="hidden")


def digest(shown: Hashable) -> str:
    """A short text for all that is shown: the same one for the same value, as long as the studio runs."""
    return format(hash(shown) & 0xFFFFFFFFFFFFFFFF, "x")


def again() -> str:
    """A text that no `digest` is: for an event that has changed what is to be shown, or cannot tell whether it has."""
    return f"again {secrets.token_hex(8)}"
