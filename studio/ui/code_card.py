"""A model's own Python files: shown with a warning, and run only where a box is ticked for that model at that commit.

Only for the person at this machine: a studio with users, or on a Space, has no such card and runs nothing.
"""

from html import escape
from typing import Any

import gradio as gr
from gradio.components import Component

from studio import account, remote_code
from studio.errors import SettingsError, StudioError
from studio.remote_code import Code
from studio.ui import form, parts
from studio.ui.studio import PRIVATE, QUIET, Studio

ABOUT = ("Some models come with Python files without which they cannot be loaded. Code can do whatever you can do on this machine: "
         "read your files, use your tokens, change other programs. So none is run, unless you look at it here and allow it.")


def told(code: Code) -> str:
    """The warning, and every file to read."""
    files = "".join(f'<details><summary>{escape(name)} ({len(text.splitlines()):,} lines)</summary>'
                    f'<pre tabindex="0">{escape(text)}</pre></details>' for name, text in code.files.items())
    what = f"{code.in_words()} brings {len(code.files)} Python file{'s' * (len(code.files) > 1)}."
    warning = "Allow them only if you have read them or know who made them. The studio does not check what they do."
    return parts.note("warn", f"{what} {warning}") + f'<div class="code">{files}</div>'


def build(studio: Studio, fields: form.Fields, token: Component) -> None:
    """The card's components and wiring."""
    with gr.Accordion("Code that a model brings", open=False, elem_id="own-code"):
        gr.Markdown(ABOUT)
        look = gr.Button("Look at this model's code", size="sm", elem_id="look-at-code", elem_classes=form.ACTS)
        shown = gr.HTML(padding=False, elem_id="code-shown")
        consent = gr.Checkbox(visible=False, elem_id="allow-code", interactive=True)
        allowed = gr.HTML(padding=False, elem_id="code-allowed")
        digest = gr.State("")

    def show(token: str, **values: Any) -> list[Any]:
        try:
            code = remote_code.look(studio.settings_of(values).model, account.entered(token))
        except SettingsError as error:
            return nothing(form.in_words(error.problems), "warn")
        except StudioError as error:
            return nothing(str(error), "warn")
        if code is None:
            return nothing("This model needs no code of its own, so none is run.", "good")
        consents = studio.consents()
        consents.show(code)
        box = gr.Checkbox(visible=True, value=consents.allows(code.digest), label=f"Run the code of {code.in_words()} on this machine",
                          info="Until the studio is closed, and only as it stands here.")
        return [told(code), box, stands(consents.allows(code.digest)), code.digest]

    def nothing(words: str = "", kind: str = "info") -> list[Any]:
        return [parts.note(kind, words) if words else "", gr.Checkbox(visible=False, value=False), "", ""]

    def stands(allows: bool) -> str:
        return parts.note("info", "Allowed: a run, a chat or a merge with this model runs its code.") if allows else ""

    def allow(wanted: bool, digest: str) -> tuple[bool, str]:
        try:
            studio.consents().allow(digest, wanted)
        except StudioError as error:
            return False, parts.note("warn", f"Not allowed. {error}")
        return wanted, stands(wanted)

    look.click(show, inputs=token, inputs_kwargs=fields, outputs=[shown, consent, allowed, digest], **PRIVATE)
    # Not queued: a start that is pressed right after it must find it.
    consent.input(allow, [consent, digest], [consent, allowed], trigger_mode="always_last", **QUIET)
    gr.on([fields[name].change for name in ("model.name", "model.revision")], nothing, outputs=[shown, consent, allowed, digest], **QUIET)
