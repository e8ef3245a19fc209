"""What is wrong with a form: said in each field and, together, beside the button that was pressed, until it is mended.

Not by Gradio's validators: in 6.31 the browser clears their messages at the first answer of any event that takes the field in,
and a timer's event does so every second (`validation_error: null` in its Blocks script).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from studio.errors import SettingsError
from studio.settings import choices
from studio.ui import form, parts
from studio.ui.mirror import Mirror
from studio.ui.studio import PRIVATE, QUIET, Studio

SCRIPT = Path(__file__).resolve().parents[2] / "assets" / "complaints.js"
WRONG = "wrong"
"""The class of a field that has a complaint."""

Problems = dict[str, str]


@dataclass(frozen=True)
class Place:
    """Where a field is on the page: the tab, and the elem_id of the part that is folded up around it, if any."""

    tab: str
    fold: str = ""


PLACES = {choice.name: Place("data" if choice.section == "data" else "train", "" if choice.basic else form.fold(choice.section))
          for choice in choices()}
"""Of the fields of the form that makes a run."""


@dataclass
class Complaints:
    """The complaints of one form, of which `now` is the mirror. `check` gives them by field name for the form's values; `places` says
    where each field is."""

    now: Mirror
    check: Callable[[dict[str, Any]], Problems]
    places: Callable[[str], Place]
    elem_id: str
    to_do: str
    """What waits for them, as its button calls it: "Start training"."""

    def __post_init__(self):
        self.fields = self.now.fields
        self.captions = {name: one.info or "" for name, one in self.fields.items()}
        self.said = gr.State({})
        self.summary = gr.HTML("", js_on_load=SCRIPT.read_text(encoding="utf-8"), elem_id=self.elem_id, padding=False, render=False)

    def build(self) -> None:
        """Add the place where all are said."""
        self.summary.render()
        self.now.changed().change(self._mended, [self.said, self.now.text], self._outputs, **QUIET)

    def before(self, trigger: Callable[..., Dependency], act: Callable[..., Any], inputs: list[Component], outputs: list[Component],
               concerns: Callable[[str], bool] = lambda name: True, **options: Any) -> Dependency:
        """An event that acts on the form if the fields that it `concerns` are valid, and otherwise shows every problem of the form.

        `act` gets the inputs by place and the form's values by name; it gives a list in the order of the outputs.
        """
        def pressed(said: dict, *given: Any, **values: Any) -> list[Any]:
            problems = self.check(values)
            if self.check({name: value for name, value in values.items() if concerns(name)}):
                return [*[gr.skip()] * len(outputs), *self._told(problems, said, int(said.get("press", 0)) + 1)]
            # Problems of other fields stay on the page if they were shown before.
            still = {name: problem for name, problem in problems.items() if name in said.get("problems", {})}
            return [*act(*given, **values), *self._told(still, said, int(said.get("press", 0)))]

        return trigger(pressed, [self.said, *inputs], [*outputs, *self._outputs], inputs_kwargs=self.fields, **(PRIVATE | options))

    @property
    def _outputs(self) -> list[Component]:
        return [self.said, self.summary, *self.fields.values()]

    def _mended(self, said: dict, text: str) -> list[Any]:
        """Only what was said once is followed: nobody is told off while they are still typing."""
        values = self.now.said(text)
        if not said.get("problems") or values is None:
            return [gr.skip()] * len(self._outputs)
        return self._told(self.check(values), said, said["press"])

    def _told(self, problems: Problems, said: dict, press: int) -> list[Any]:
        before = said.get("problems", {})
        if problems == before and press == said.get("press") or not (problems or before):
            return [gr.skip()] * len(self._outputs)
        return [{"press": press, "problems": problems}, self._summary(problems, press),
                *(gr.skip() if problems.get(name) == before.get(name) else self._marked(name, problems.get(name)) for name in self.fields)]

    def _marked(self, name: str, problem: str | None) -> dict[str, Any]:
        caption = self.captions[name]
        told = f"**{problem.replace('](', '] (')}**\n{caption}".strip() if problem else caption
        return gr.update(info=told, elem_classes=[WRONG] if problem else [])

    def _summary(self, problems: Problems, press: int) -> str:
        if not problems:
            return ""
        count = "one field" if len(problems) == 1 else f"{len(problems)} fields"
        items = "".join(f"<li>{self._item(name, problems[name])}</li>" for name in sorted(problems, key=self._order))
        return (f'<div class="complaints" role="alert" data-press="{press}"><p>Fix {count} before “{parts.text(self.to_do)}”:</p>'
                f"<ul>{items}</ul></div>")

    def _order(self, name: str) -> int:
        return list(self.fields).index(name) if name in self.fields else -1

    def _item(self, name: str, problem: str) -> str:
        if name not in self.fields:
            return parts.text(f"{name}: {problem}")
        one, place = self.fields[name], self.places(name)
        return (f'<a href="#{parts.text(one.elem_id)}" data-field="{parts.text(one.elem_id)}" data-tab="{place.tab}" '
                f'data-fold="{place.fold}">{parts.text(one.label)}</a>: {parts.text(problem)}')


def of_settings(studio: Studio, now: Mirror) -> Complaints:
    """The complaints of the form that makes a run."""
    def check(values: dict[str, Any]) -> Problems:
        try:
            studio.settings_of(values)
        except SettingsError as error:
            return error.problems
        return {}

    return Complaints(now, check, PLACES.__getitem__, "complaints", "Start training")
