"""Dropdowns and radios whose choices the server may change under the value that a browser still holds.

Gradio refuses such a value before the event's function is called: the page shows an error, and the event that would have offered
other choices never runs. Here the value reaches the function, which looks at it anyway (whoever reaches the page can send anything)
and answers in words. All lists of the page are made of these.

A person goes on while the server looks. So a list gets other choices only while it is closed (they would move under the pointer, and
another one be taken than was meant), and it gets a value only where the one that it had when the look was asked for cannot stay: any
value undoes what was chosen since.
"""

import json
from abc import ABCMeta
from typing import Any

import gradio as gr
from gradio.component_meta import ComponentMeta


class _Meta(ComponentMeta):
    """Gradio's own writes a .pyi beside the file of each class that it makes."""

    def __new__(cls, name: str, bases: tuple, attrs: dict):
        return ABCMeta.__new__(cls, name, bases, attrs)


class Dropdown(gr.Dropdown, metaclass=_Meta):
    """Hands on a text, or a list of texts where several can be chosen, offered or not; None for anything else."""

    def preprocess(self, payload: Any) -> Any:
        if self.multiselect:
            return [each for each in payload if isinstance(each, str)] if isinstance(payload, list) else []
        return payload if isinstance(payload, str) else None


class Radio(gr.Radio, metaclass=_Meta):
    """Hands on a text, offered or not; None for anything else."""

    def preprocess(self, payload: Any) -> Any:
        return payload if isinstance(payload, str) else None


_ONCE_CLOSED = """async (...given) => {{
  const isOpen = () => {lists}.some((id) => document.querySelector(`#${{id}} [aria-expanded="true"]`));
  while (isOpen()) await new Promise((done) => setTimeout(done, 100));
  return given;
}}"""


def once_closed(*lists: gr.Dropdown) -> dict[str, str]:
    """For an event that offers other choices: it is sent once none of the lists is open."""
    return {"js": _ONCE_CLOSED.format(lists=json.dumps([each.elem_id for each in lists]))}


def with_choices(choices: list, given: Any, wanted: Any, **more: Any) -> dict[str, Any]:
    """The update of a list that holds the value `given`, so that it holds `wanted`."""
    return gr.update(choices=choices, **({} if given == wanted else {"value": wanted}), **more)
