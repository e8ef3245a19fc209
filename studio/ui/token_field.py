"""A field for a Hub token, and under it what there is to say of the one that was entered. The token never comes back to the page."""

import gradio as gr

from studio import account
from studio.ui import parts
from studio.ui.studio import PRIVATE


def build(elem_id: str, info: str, label: str = "Hub token", to_write: bool = False) -> gr.Textbox:
    """The field; `to_write` says that it is meant for pushing."""
    field = gr.Textbox(label=label, info=info, type="password", elem_id=elem_id)
    told = gr.HTML(elem_id=f"{elem_id}-told", padding=False)

    def try_token(text: str) -> str:
        kind, words = account.in_words(text, to_write)
        return parts.note(kind, words) if words else ""

    gr.on([field.blur, field.submit], try_token, field, told, concurrency_limit=4, **PRIVATE)
    return field
