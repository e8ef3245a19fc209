"""How a part of the page learns that it is to be shown anew: by a hidden text, that is another one whenever what it stands for has changed.

Not by a gr.State: in Gradio 6.31 the browser hears of a changed state only from an event in the queue. The server closes the queue's
stream when no event is pending, and the answer to one that is sent in that moment can be lost: its timer would never tick again.
An event outside the queue is one request and its answer.

A part of the page shows itself by one event, which listens to a text of its own: of two events that show the same, the first to be
asked may be the last to answer, and what it found would stay. And where several events that run again for what came meanwhile listen to
the same change, Gradio 6.31 runs all of them again for each that waited: two changes in quick succession then chase each other for ever.
So whatever makes a part show itself only writes another text, in the browser, with `tell`.
"""

import secrets
from collections.abc import Callable, Hashable

import gradio as gr

from studio.ui.studio import QUIET

_AGAIN = "() => `again ${performance.now()} ${Math.random()}`"


def build() -> gr.Textbox:
    """The text, to be rendered here; listen to its `change`."""
    return gr.Textbox(visible="hidden")


def digest(shown: Hashable) -> str:
    """A short text for all that is shown: the same one for the same value, as long as the studio runs."""
    return format(hash(shown) & 0xFFFFFFFFFFFFFFFF, "x")


def again() -> str:
    """A text that no `digest` is: for an event that has changed what is to be shown, or cannot tell whether it has."""
    return f"again {secrets.token_hex(8)}"


def tell(text: gr.Textbox, *triggers: Callable) -> None:
    """Make a text another one at each of these triggers."""
    gr.on([*triggers], None, None, text, js=_AGAIN, trigger_mode="multiple", **QUIET)


def own(*triggers: Callable) -> gr.Textbox:
    """A text that becomes another one at each of these triggers, to be rendered here, for a single event that listens to its `change`."""
    text = build()
    tell(text, *triggers)
    return text
