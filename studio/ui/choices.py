"""Dropdowns and radios whose choices the server may change under the value that a browser still holds.

Gradio refuses such a value before the event's function is called: the page shows an error, and the event that would have offered
other choices never runs. Here the value reaches the function, which looks at it anyway (whoever reaches the page can send anything)
and answers in words. All lists of the page are made of these.
"""

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
