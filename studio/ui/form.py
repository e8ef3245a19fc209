"""The form, made from the declared choices: one component a choice, checks under the field, values by name."""

from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from studio.settings import Choice, Settings, choices
from studio.ui.choices import Dropdown

WORDS = {"none": "none", "nf4": "4 bits (NF4, QLoRA)", "int8": "8 bits", "own": "the model's own", "chatml": "ChatML",
         "gpu": "GPU", "cpu": "CPU", "wandb": "W&B", "tensorboard": "TensorBoard", "trackio": "Trackio"}
"""Options whose name in the file is not what a person would say."""

LINES = {"evaluation.prompts": 3, "data.also": 2, "data.edits": 2}
"""Of fields that hold more than one."""

Fields = dict[str, Component]

ACTS = "acts-on-form"
"""The class of buttons that act on what the form says: they wait while an event fills it."""

_FILLS = """(...given) => {{
  const fills = window.orpoFills ??= new Map();  // which events are awaited, and when each was last sent
  const show = () => document.querySelectorAll(".{acts}").forEach((button) => button.inert = fills.size > 0);
  const now = performance.now();
  if ({begins}) fills.set({key}, now);
  // A choice that was made while the answer to another was awaited is sent a moment after that answer. Many fields that change
  // at once send an event more often than it is answered (Gradio 6.31), so they are not counted.
  else setTimeout(() => {{ if (fills.get({key}) <= now) fills.delete({key}); show(); }}, 100);
  show();
  return {given};
}}"""
_keys = count()


def component(choice: Choice, value: Any) -> Component:
    """The input for one choice, holding a value."""
    shared = {"label": choice.label, "info": choice.caption, "value": value, "elem_id": "field-" + choice.name.replace(".", "-"),
              "visible": "hidden" if choice.hidden else True}
    if choice.options:
        return Dropdown([(WORDS.get(option, option), option) for option in choice.options], **shared)
    if choice.kind is bool:
        return gr.Checkbox(**shared)
    if choice.kind in (int, float):
        return gr.Number(precision=0 if choice.kind is int else None, **shared)
    return gr.Textbox(lines=LINES.get(choice.name, 1), **shared)


def fields(*sections: str, basic: bool, values: dict[str, Any]) -> Fields:
    """The components of the sections' basic or further choices, in a row that wraps, holding `values` by name."""
    with gr.Row(elem_classes="fields"):
        return {choice.name: component(choice, values[choice.name]) for choice in choices()
                if choice.section in sections and choice.basic == basic}


def key() -> int:
    """The key of a fill, for whoever must know it before."""
    return next(_keys)


def fill(trigger: Callable[..., Dependency], *what: Any, given: str = "given", awaited: int | None = None, **options: Any) -> Dependency:
    """`trigger(*what, **options)`, an event whose outputs are fields of the form.

    From the click to the answer, buttons of the class ACTS cannot be pressed: they would act on what the form said before,
    and a run would be started with settings that its starter no longer sees. `given` is JavaScript for the event's inputs.
    """
    named = {"acts": ACTS, "key": key() if awaited is None else awaited}
    filling = trigger(*what, js=_FILLS.format(begins="true", given=given, **named), **options)
    over = {"js": _FILLS.format(begins="false", given="given", **named), "queue": False, "api_visibility": "private"}
    filling.failure(**over)  # Gradio 6.31 has no `then` after a failure
    return filling.then(**over)


def fold(section: str) -> str:
    """The elem_id of the part in which a section's further choices are folded up."""
    return f"more-{section}"


def in_words(problems: dict[str, str], labels: dict[str, str] | None = None) -> str:
    """Complaints by field name as one text, each with its field's label, for a place that is not under the field.

    `labels` are by field name those of another form than this one.
    """
    labels = labels or {choice.name: choice.label for choice in choices()}
    return " ".join(f"{labels.get(name, name)}: {text}" for name, text in problems.items())


def settings_of(values: dict[str, Any]) -> Settings:
    """The form's values as Settings; an emptied text field means an empty text. Raises SettingsError."""
    texts = {choice.name for choice in choices() if choice.kind is str and not choice.options}
    return Settings.from_form(**{name: "" if value is None and name in texts else value
                                 for name, value in values.items()})


def updates(settings: Settings, names: Iterable[str]) -> list[Any]:
    """The settings' values in the order of the named fields."""
    values = settings.to_form()
    return [values[name] for name in names]
