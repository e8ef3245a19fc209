"""How a timer tells that something is to be shown anew: by a hidden text, that is another one whenever what it stands for has changed.

Not by a gr.State: in Gradio 6.31 the browser hears of a changed state only from an event that was in the queue, and an answer from
the queue is lost now and then. The server closes the queue's stream when nothing is waited for; an event that is sent in that moment
is answered into the closed stream, and its timer never ticks again. Events outside the queue are one request and one answer.
"""

from collections.abc import Hashable

import gradio as gr


def build() -> gr.Textbox:
    """The text; listen to its `change`. It belongs where its listeners are: a tab that was never in front tells of no change."""
    return gr.Textbox(visible="hidden")


def digest(shown: Hashable) -> str:
    """A short text for all that is shown: the same one for the same value, as long as the studio runs."""
    return format(hash(shown) & 0xFFFFFFFFFFFFFFFF, "x")
