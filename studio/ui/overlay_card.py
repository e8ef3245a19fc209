"""Other runs beside the one in view: their curves in its charts; their settings and results, where they differ, in a table."""

from collections.abc import Callable
from itertools import islice
from typing import Any

import gradio as gr

from studio import about, jobs
from studio.errors import StudioError
from studio.events import Event
from studio.held_out import compared
from studio.runs import Run
from studio.settings import choices
from studio.summary import Summary, duration, percent, span
from studio.ui import form, parts
from studio.ui.choices import Dropdown, with_choices
from studio.ui.studio import Studio

MOST = 3
"""Runs laid over another; more curves cannot be told apart."""
OFFERED = 50
LONGEST = 120
"""Characters of a setting in the table."""
ALIKE = "All settings are the same."


def offered(studio: Studio, name: str | None) -> list[tuple[str, str]]:
    """The newest other runs that have begun, label and name."""
    others = (entry for entry in studio.entries() if not entry.reason and entry.run.name != name and entry.status not in (None, "queued"))
    return [(about.called(entry.title, entry.run), entry.run.name) for entry in islice(others, OFFERED)]


def offer(studio: Studio, name: str | None, others: list[str]) -> dict[str, Any]:
    """The update of the field for the run in view: those that are laid over it stay, if they can."""
    found = offered(studio, name)
    names = [other for _, other in found]
    return with_choices(found, others, [other for other in others if other in names], visible=bool(names))


def chosen(studio: Studio, name: str | None, others: list[str] | None) -> list[Run]:
    """The runs that are laid over the one in view: those of the chosen that there are."""
    found = [studio.find(other) for other in (others or [])[:MOST] if other != name]
    return [run for run in found if run is not None]


def counts(studio: Studio, runs: list[Run]) -> dict[str, int]:
    """How many rows the charts have of each."""
    return {run.name: studio.reading(jobs.of(run)).count for run in runs}


def table(runs: list[Run], said: Callable[[Run], list[Event]]) -> str:
    """Results of all, and the settings in which they differ; the first is the one in view."""
    if len(runs) < 2:
        return ""
    differing = differences(runs)
    rows = [*results([Summary(said(run)) for run in runs]), *differing]
    return ("<h3>Results, and settings that differ</h3>" + parts.table(("", *(about.label(run) for run in runs)), rows)
            + ("" if differing else parts.note("info", ALIKE)))


def results(summaries: list[Summary]) -> list[tuple[str, ...]]:
    """What came out, a row for each figure."""
    return [("Steps", *(f"{one.step:,}" for one in summaries)),
            ("Time", *(duration(one.seconds_taken) for one in summaries)),
            ("Loss, last step", *(_figure(one.metrics.get("loss")) for one in summaries)),
            ("Prefers the better answer, held out", *(_preference(one) for one in summaries)),
            ("Reward margin, held out", *(_figure((one.held_out("tuned") or {}).get("rewards/margins")) for one in summaries))]


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _preference(summary: Summary) -> str:
    found, tuned = compared(summary), summary.held_out("tuned")
    if found is not None:
        return f"{percent(found.after)} ({span(found.after_interval)})"
    return percent((tuned or {}).get("rewards/accuracies"))


def differences(runs: list[Run]) -> list[tuple[str, ...]]:
    """The settings in which they differ: the label, and each run's value."""
    try:
        stored = [run.stored for run in runs]
    except StudioError as error:
        return [("Settings", *[f"cannot be compared: {error}"] * len(runs))]
    values = [each.settings.to_form() for each in stored]
    rows = [(choice.label, *(_in_words(each[choice.name]) for each in values)) for choice in choices()
            if any(each[choice.name] != values[0][choice.name] for each in values)]
    foreign = dict.fromkeys(name for each in stored for name in each.unknown)  # of another version
    return rows + [(f"{name} (not a setting of this version)", *(_in_words(each.unknown.get(name)) for each in stored)) for name in foreign]


def _in_words(value: Any) -> str:
    if value is None or value == "":
        return "–"
    told = {True: "yes", False: "no"}.get(value, form.WORDS.get(value, str(value))) if isinstance(value, bool | str) else (
        f"{value:g}" if isinstance(value, int | float) else str(value))
    return told if len(told) <= LONGEST else f"{told[:LONGEST]} …"


def build() -> gr.Dropdown:
    """The field that chooses the runs; `offered` says which there are."""
    return Dropdown([], value=[], multiselect=True, max_choices=MOST, label="Lay other runs over it", visible=False, elem_id="overlaid",
                    info="Their curves are drawn with those of the run in view, and a table tells how they differ.")
