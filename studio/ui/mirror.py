"""The values of many fields as one hidden JSON text. Events that depend on the whole form listen to this text instead of every field."""

import json
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from studio.ui import news
from studio.ui.form import ACTS, Fields
from studio.ui.studio import QUIET

SETTLED_MS = 40
"""Milliseconds without a change before the fields are read: a preset changes many of them in one go."""

_CHANGED = """() => {{
  const waiting = window.orpoSettling ??= new Map(), before = waiting.get({name});
  clearTimeout(before?.timer);
  before?.done({{__type__: "update"}});{awaited}
  return new Promise((done) => waiting.set({name}, {{done, timer: setTimeout(() => done(String(performance.now())), {pause})}}));
}}"""
_AWAITED = """
  (window.orpoFills ??= new Map()).set({key}, performance.now());
  document.querySelectorAll(".{acts}").forEach((button) => button.inert = true);"""

_READ = """(...given) => {{
  const text = JSON.stringify(Object.fromEntries({names}.map((name, place) => [name, given[place] ?? null])));
  const seen = window.orpoMirrors ??= new Map(), fills = window.orpoFills ??= new Map();
  if (seen.get({name}) === text) fills.delete({key});  // an unchanged text sets off no event that would end the wait
  document.querySelectorAll(".{acts}").forEach((button) => button.inert = fills.size > 0);
  seen.set({name}, text);
  return text;
}}"""


@dataclass(frozen=True)
class Mirror:
    """The text and the fields that it follows.

    Gradio 6.31 looks for each input and each trigger of an event in the tree of the whole page, which takes the browser about half a
    millisecond: an event that has 53 fields as its inputs and is triggered by each of them kept it busy for seconds after a preset
    had been chosen. An event that takes in the text has one input and one trigger.
    It also keeps events apart from the fields that they fill: a field in a folded part or another tab, once it was filled, tells of a
    change whenever an event has taken it in, and such an event would set itself off without end.
    """

    text: gr.Textbox
    fields: Fields

    def changed(self) -> gr.Textbox:
        """A text that becomes another one whenever this one does, to be rendered here, for a single event that listens to it."""
        return news.own(self.text.change)

    def said(self, text: str) -> dict[str, Any] | None:
        """The values by name, as an event that takes in the fields gets them; None for a text that is none of this mirror's.

        Before the first change the text is empty, and anyone who reaches the page can send anything.
        """
        try:
            values = json.loads(text)
            if not isinstance(values, dict) or set(values) != set(self.fields):
                return None
            return {name: field.preprocess(values[name]) for name, field in self.fields.items()}
        except (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError, gr.Error):
            return None


def of(fields: dict[str, Component], elem_id: str, awaited: int | None = None) -> Mirror:
    """The mirror of these fields. Buttons of the class ACTS wait from a change on, if `awaited` is the key of the `fill` that follows."""
    text, settled = gr.Textbox(visible="hidden", elem_id=elem_id), gr.Textbox(visible="hidden")
    key = "null" if awaited is None else awaited
    waits = "" if awaited is None else _AWAITED.format(key=key, acts=ACTS)
    changed = _CHANGED.format(name=json.dumps(elem_id), pause=SETTLED_MS, awaited=waits)
    for field in fields.values():
        field.change(None, None, settled, js=changed, **QUIET)
    read = _READ.format(names=json.dumps(list(fields)), name=json.dumps(elem_id), key=key, acts=ACTS)
    settled.change(None, [*fields.values()], text, js=read, **QUIET)
    return Mirror(text, fields)
