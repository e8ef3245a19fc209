"""Whose choices the form shows: when it names another source, what was chosen for that one comes, and this is said."""

from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from studio import source_choices
from studio.errors import StudioError
from studio.settings import Settings
from studio.source_choices import EDITS, EDITS_FOR, Identity
from studio.ui import form, mirror, parts
from studio.ui.studio import QUIET, Studio


@dataclass(frozen=True)
class SourceCard:
    """Whose choices stand in the form, their undo stack, and where it is said that they are others than before."""

    whose: gr.State
    history: gr.State
    told: gr.HTML

    @property
    def outputs(self) -> list[Component]:
        """What an event gives, besides the fields, that has filled in other data: see `taken_over`."""
        return [self.whose, self.history, self.told]


def build() -> SourceCard:
    """The components; `complete` wires them once all fields are there."""
    return SourceCard(gr.State(None), gr.State([]), gr.HTML("", elem_id="source-told", padding=False))


def permitted(studio: Studio) -> Any:
    """What refuses sources that the visitor may not read."""
    return lambda data: studio.permitted(Settings(data=data.model_dump()))


def taken_over(studio: Studio, settings: Settings, words: str) -> list[Any]:
    """What `SourceCard.outputs` are after these settings have been filled in as a whole: nothing is fetched in their place.

    Edits that were made for what a file held then are told where it holds something else by now.
    """
    kind = "info"
    try:
        studio.permitted(settings)
        source_choices.refuse_edits_of_other_data(settings.data)
    except StudioError as error:
        kind, words = "warn", f"{words} {error}"
    return [source_choices.identity(settings.to_form(), permitted(studio)), [], parts.note(kind, words)]


def complete(studio: Studio, card: SourceCard, everything: form.Fields) -> None:
    """The wiring. `everything` is all fields of the form, of which those that belong to the data follow their source.

    To be called in a part of the page that is always there.
    """
    held = {name: field for name, field in everything.items() if name in source_choices.OF_DATA}
    mine, awaited = [name for name in held if name != source_choices.SOURCE], form.key()
    now = mirror.of(held, "data-now", awaited)

    def follow(whose: Identity | None, history: list, text: str) -> list[Any]:
        values = now.said(text)
        found = source_choices.follow(studio.root, whose, values, history, permitted(studio)) if values is not None else None
        if found is None:
            return [gr.skip()] * (3 + len(mine))
        told = parts.note("info", found.told) if found.told else ""
        return [found.whose, found.history, told, *(found.values.get(name, gr.skip()) for name in mine)]

    def mark(text: str, before: str, **values: Any) -> str:
        # What the examined pairs were is known to the examination, which also knows a commit.
        return "" if not text.strip() else before or source_choices.marks(values, permitted(studio))

    form.fill(now.text.change, follow, [card.whose, card.history, now.text], [*card.outputs, *(held[name] for name in mine)],
              awaited=awaited, trigger_mode="always_last", **QUIET)
    form.fill(held[EDITS].input, mark, [held[EDITS], held[EDITS_FOR]], held[EDITS_FOR], inputs_kwargs=held, trigger_mode="always_last",
              **QUIET)
