"""The doctor on the page: what an examination says, one click against each finding, filters by column, undo."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from studio import account, examination, jobs, source_choices
from studio.errors import DataError, SettingsError, StudioError
from studio.fingerprints import OF_OTHER_DATA
from studio.jobs import Job
from studio.preferences import edits
from studio.preferences.findings import Finding
from studio.settings import Settings
from studio.share import FILE
from studio.shelf import Shelf
from studio.source_choices import EDITS, EDITS_FOR, History, Values
from studio.summary import Summary
from studio.ui import examined, form, news, parts
from studio.ui.choices import Dropdown, once_closed, with_choices
from studio.ui.complaints_card import Complaints
from studio.ui.source_card import SourceCard
from studio.ui.studio import LATEST, PRIVATE, QUIET, Studio, looks_while, refuse

FIXES = 10
"""Findings that get a button; the gravest come first."""
REMEMBERED = 50
CHANGED_BY_FIXES = ("data.edits", "data.edits_for", "data.leave_out", "data.subset", "data.encoding", "data.also", "training.max_length")

EMPTY = "Not examined yet. Press “Examine the pairs” to see what the model will learn from and what is wrong with it."
OTHER_PAIRS = "The form names other pairs by now than those that you see. Examine these first."
CHANGED = "These choices have not been examined yet. Press “Examine the pairs”."


@dataclass(frozen=True)
class View:
    """The state of the examination of some values: what the doctor says and the lengths as HTML, whether it is under way,
    what it offers, its columns' values.

    `folder` holds the examined pairs, of which there are `pairs`; `foreign` says that the edits were made for other data.
    """

    html: str
    lengths: str = ""
    at_work: bool = False
    foreign: bool = False
    offers: tuple[Finding, ...] = ()
    columns: tuple[tuple[str, str], ...] = ()
    folder: Path | None = None
    pairs: int = 0


def settings_of(studio: Studio, values: dict[str, Any]) -> Settings:
    """What an examination of the form's values is asked for with. Raises SettingsError."""
    return studio.settings_of({name: value for name, value in values.items() if examination.concerns(name)})


def view(studio: Studio, values: dict[str, Any]) -> View:
    """The examination of the form's values as it stands."""
    try:
        settings = settings_of(studio, values)
    except SettingsError as error:
        return View(parts.note("bad", form.in_words(error.problems)))
    try:
        source_choices.refuse_edits_of_other_data(settings.data)
    except DataError as error:
        return View(parts.note("bad", str(error)), foreign=True)
    job = examination.job_of(studio.root, settings)
    said = jobs.events.read(job.log)
    status = jobs.status(job, said)
    if status in (*jobs.ALIVE, "queued"):  # queued: asked for, its worker about to be there
        return View(examined.at_work(Summary(said)), at_work=True)
    found = examination.found(job) if status == "finished" else None
    if found:
        shelf = Shelf(job.folder)
        offers = tuple(finding for finding in found.findings if finding.button)[:FIXES]
        return View(examined.told(found, shelf), examined.lengths_card(found.lengths, found.without_lengths, found.pairs),
                    offers=offers, columns=values_of(found.columns), folder=job.folder, pairs=len(shelf))
    if status in ("failed", "crashed"):
        told = Summary(said).failure or ("The examination ended without a word, most likely because the memory was full. "
                                         "Close other programs, then examine again.")
        return View(parts.note("bad", told), foreign=told.startswith(OF_OTHER_DATA), offers=examination.encodings(job, settings))
    return View(parts.empty(CHANGED if (studio.root / ".examined").exists() else EMPTY))


def values_of(columns: dict[str, dict[str, int]]) -> tuple[tuple[str, str], ...]:
    """The columns' values to choose from: with the count, and as an edit names them."""
    return tuple((f"{column} = {value} ({count:,} rows)", f"{column} = {value}")
                 for column, counts in columns.items() for value, count in counts.items())


def with_edit(before: str, edit: str) -> str:
    """The edits with one more at the end."""
    return "; ".join(filter(None, ((before or "").strip().rstrip(";").strip(), edit)))


def without_last(before: str) -> str:
    """The edits without the last one; as they are where they cannot be read."""
    try:
        return "; ".join(map(str, edits.parse(before)[:-1]))
    except DataError:
        return before


def seen_in(folder: str, settings: Settings) -> str:
    """The fingerprints of the data whose examination lies in a folder. Raises StudioError where the form names others by now."""
    try:
        shown = Settings.from_file(Path(folder) / FILE).to_form()
    except SettingsError as error:
        raise StudioError(OTHER_PAIRS) from error
    is_of, names = source_choices.identity(shown), source_choices.identity(settings.to_form())
    if names is None or is_of is None or is_of.rows != names.rows:
        raise StudioError(OTHER_PAIRS)
    found = examination.found(Job("examine", Path(folder)))
    return found.made_of if found else ""


def fixed(values: Values, fix: Finding, made_of: str) -> Values:
    """What a fix changes, by field name. `made_of` says which data it was found in."""
    if not fix.edit:
        return {fix.setting: fix.value}
    return {EDITS: with_edit(values[EDITS], fix.edit), EDITS_FOR: made_of or values[EDITS_FOR]}


def undone(values: Values, history: History) -> tuple[Values, History]:
    """What was before the last change, by field name, and the stack before it; without one (an older draft) the last edit goes."""
    if history:
        return history[-1], history[:-1]
    left = without_last(values[EDITS])
    return {EDITS: left, EDITS_FOR: values[EDITS_FOR] if left else ""}, []


def by_place(change: Values) -> list[Any]:
    """A change in the order of CHANGED_BY_FIXES."""
    return [change.get(name, gr.skip()) for name in CHANGED_BY_FIXES]


@dataclass(frozen=True)
class Doctor:
    """What the other parts of the tab need of it.

    `folder` holds the path of the examined pairs in view, or nothing. `follow(listener, inputs, outputs)` calls a listener
    whenever it may have changed. `edit(trigger, make, inputs)` lets an event add the edit that `make` gives for the inputs
    (nothing for none), and examines anew.
    """

    folder: gr.State
    follow: Callable[[Callable, list[Component], list[Component]], None]
    edit: Callable[[Callable, Callable[..., str], list[Component]], None]


def build(studio: Studio, everything: form.Fields, token: gr.Textbox, source: SourceCard, complaints: Complaints) -> Doctor:
    """The components and their wiring. `everything` is all fields: the examination is for a model and a maximum length too."""
    with gr.Row():
        go = gr.Button("Examine the pairs", variant="primary", elem_id="examine", elem_classes=form.ACTS)
        cancel = gr.Button("Cancel", visible=False, elem_id="cancel-examination")
        strip = gr.Button("Remove these edits", visible=False, elem_id="remove-edits")
    seen = gr.HTML(parts.empty(EMPTY), elem_id="examination", padding=False)
    with gr.Row(elem_id="fixes"):
        fixes = [gr.Button(visible=False, size="sm", elem_id=f"fix-{place}") for place in range(FIXES)]
        undo = gr.Button("Undo the last change", visible=False, size="sm", elem_id="undo-edit")
    lengths = gr.HTML("", elem_id="lengths", padding=False)
    with gr.Accordion("Choose rows by a column", open=False, visible=False, elem_id="by-column") as by_column:
        value = Dropdown([], label="Rows with", elem_id="column-value", info="Of columns with at most thirty different values.")
        with gr.Row():
            acts = {"drop": gr.Button("Drop these rows", size="sm", elem_id="drop-rows"),
                    "keep": gr.Button("Keep only these", size="sm", elem_id="keep-rows"),
                    "hold out": gr.Button("Hold these out to measure on", size="sm", elem_id="hold-out-rows")}
    watch, folder, offered, history = gr.Timer(1.0), gr.State(""), gr.State(()), source.history
    listed = news.build()
    changed = [everything[name] for name in CHANGED_BY_FIXES]
    shown = [seen, lengths, watch, cancel, strip, undo, folder, offered, by_column, listed, *fixes]

    def show(past: list, by_timer: bool = False, **values: Any) -> list[Any]:
        now = view(studio, values)
        buttons = [gr.Button(now.offers[i].button, visible=True) if i < len(now.offers) else gr.Button(visible=False) for i in range(FIXES)]
        can_undo = bool(past or values["data.edits"]) and not now.at_work
        return [now.html, now.lengths, looks_while(now.at_work, by_timer), gr.Button(visible=now.at_work),
                gr.Button(visible=now.foreign), gr.Button(visible=can_undo), str(now.folder or ""), now.offers,
                gr.Accordion(visible=bool(now.columns)), news.digest(now.columns), *buttons]

    def offer(folder: str, held: str | None) -> dict[str, Any]:
        """While nothing is examined the list keeps what it holds, out of sight."""
        found = examination.found(Job("examine", Path(folder))) if folder else None
        columns = values_of(found.columns) if found else ()
        return with_choices(list(columns), held, held if held in dict(columns).values() else None) if columns else gr.skip()

    def look(past: list, text: str, event: gr.EventData) -> list[Any]:
        values = complaints.now.said(text)
        # By its kind: a page's events name a copy of a component that Gradio 6.31 has updated, with another id.
        by_timer = isinstance(event.target, gr.Timer)
        return [gr.skip()] * len(shown) if values is None else show(past, by_timer, **values)

    def begin(past: list, token: str, **values: Any) -> list[Any]:
        try:
            examination.begin(studio.root, settings_of(studio, values), account.entered(token))
        except StudioError as error:
            return [refuse("Not examined", error)] * len(shown)
        return show(past, **values)

    def stop(**values: Any) -> None:
        with suppress(SettingsError):  # with such settings nothing is being examined
            jobs.stop(examination.job_of(studio.root, settings_of(studio, values)))

    looks, listeners = [], []

    def tell(look: Dependency) -> None:
        looks.append(look)
        for listener in listeners:
            look.then(*listener, **QUIET)

    def follow(*listener: Any) -> None:
        listeners.append(listener)
        for look in looks:
            look.then(*listener, **QUIET)

    asking = {"inputs": [history, token], "inputs_kwargs": everything, "outputs": shown}

    def examined_after(filled: Dependency) -> None:
        tell(filled.then(begin, **asking, **PRIVATE))

    def edit(trigger: Callable, make: Callable[..., str], inputs: list[Component]) -> None:
        def made(past: list, folder: str, *given: Any, **values: Any) -> list[Any]:
            found = make(*given)
            if not found:
                return [gr.skip()] * (1 + len(changed))
            fix = found if isinstance(found, Finding) else Finding("", "hint", 0, "", (), edit=found)
            try:
                # An examination that ended for want of an encoding has no pairs, and its offers change no edits.
                change = fixed(values, fix, seen_in(folder, settings_of(studio, values)) if fix.edit or folder else "")
            except StudioError as error:
                return [refuse("Not changed", error)] * (1 + len(changed))
            return [[*past, {name: values[name] for name in change}][-REMEMBERED:], *by_place(change)]

        examined_after(form.fill(trigger, made, [history, folder, *inputs], [history, *changed], inputs_kwargs=everything, **PRIVATE))

    def undo_last(past: list, **values: Any) -> list[Any]:
        before, past = undone(values, past)
        return [past, *by_place(before)]

    def remove(past: list, **values: Any) -> list[Any]:
        before = {name: values[name] for name in (EDITS, EDITS_FOR)}
        return [[*past, before][-REMEMBERED:], *by_place({EDITS: "", EDITS_FOR: ""})]

    for place, button in enumerate(fixes):
        edit(button.click, lambda offers, at=place: offers[at] if at < len(offers) else "", [offered])
    for verb, button in acts.items():
        edit(button.click, lambda chosen, verb=verb: f"{verb} {chosen}" if chosen else "", [value])
    tell(complaints.before(go.click, begin, [history, token], shown, examination.concerns))
    examined_after(form.fill(undo.click, undo_last, history, [history, *changed], inputs_kwargs=everything, **PRIVATE))
    examined_after(form.fill(strip.click, remove, history, [history, *changed], inputs_kwargs=everything, **PRIVATE))
    cancel.click(stop, inputs_kwargs=everything, **PRIVATE)
    listed.change(offer, [folder, value], value, **once_closed(value), **QUIET, **LATEST)
    tell(gr.on([watch.tick, complaints.now.changed().change], look, [history, complaints.now.text], shown, **QUIET, **LATEST))
    return Doctor(folder, follow, edit)
