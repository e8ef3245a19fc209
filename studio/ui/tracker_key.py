"""A field for the key of Weights & Biases, there only while that is chosen to report to. The key never comes back to the page."""

import gradio as gr
from gradio.components import Component

from studio.ui.studio import QUIET

INFO = ("From wandb.ai/authorize. Kept in memory and handed to the run, never written. Without one the run is written offline into its "
        "folder, or with the login of this machine.")


def build(report_to: Component) -> gr.Textbox:
    """The field, beside the one that says whom to report to."""
    with gr.Column(visible=False) as around:  # shown and hidden instead of the field: no event's output is a field for a secret
        key = gr.Textbox(label="W&B key", type="password", info=INFO, elem_id="wandb-key")
    report_to.change(lambda chosen: gr.Column(visible=chosen == "wandb"), report_to, around, **QUIET)
    return key
