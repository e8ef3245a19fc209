"""Train: a preset fills the form, the form makes a run."""

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.events import Dependency

from studio import account, fit, gpu, practice, script, shares, source_choices, trackers
from studio.errors import BaseModelError, SettingsError, StudioError
from studio.presets import FIRST, all_presets
from studio.settings import Settings
from studio.ui import code_card, complaints_card, fit_card, form, long_run, mirror, parts, source_card, token_field, tracker_key
from studio.ui.choices import Dropdown
from studio.ui.complaints_card import Complaints
from studio.ui.source_card import SourceCard
from studio.ui.studio import LATEST, PRIVATE, QUIET, Studio, refuse

SECTIONS = {"model": "the model", "adapter": "the adapter", "training": "training", "evaluation": "evaluation"}
NO_PRESET = "There is no such preset any more, so nothing was filled in. Choose one from the list."
ONCE_WITHIN = 5.0
"""Seconds in which the same settings, started again, are the same run: a double click, a second tab, a request repeated."""


@dataclass(frozen=True)
class TrainTab:
    """The start button's outcome, the name of the new run, as a component others can listen to; the form, its complaints and preset.

    `follow` makes the card above Start look again after an event that has filled the form.
    """

    started: gr.State
    everything: form.Fields
    complaints: Complaints
    preset: gr.Dropdown
    purpose: gr.Markdown
    follow: Callable[[Dependency], Dependency]


def begin(studio: Studio, settings: Settings, token: str = "", wandb_key: str = "") -> str:
    """Create a run and queue it; its name. Raises StudioError, and then nothing has been created."""
    return studio.queue.add(settings, ready(studio, settings, token, wandb_key), studio.root, once_within=ONCE_WITHIN).name


def ready(studio: Studio, settings: Settings, token: str, wandb_key: str = "") -> dict[str, str]:
    """What the run's worker is to be handed. Raises StudioError for a run that cannot start."""
    shares.refuse_another_run(studio.root, studio.queue.index)
    shares.refuse_disk(studio.root)
    trackers.refuse_one_that_is_missing(settings.training.report_to)
    entered = account.entered(token) | trackers.entered(wandb_key, settings.training.report_to)
    secrets, shape = studio.handed(entered), None
    if settings.training.push_checkpoints_to:
        account.refuse_one_that_only_reads(secrets)
    try:
        shape = studio.shapes.known(settings.model)
    except BaseModelError:
        raise
    except StudioError:  # a model that cannot be looked at now may be there when its turn comes
        pass
    source_choices.refuse_edits_of_other_data(settings.data)
    gpu.refuse_what_cannot_start(settings, studio.root, fit.on_disk(settings, shape) if shape else 0)
    return secrets


def again(studio: Studio, name: str | None, fields: form.Fields, from_adapter: bool) -> list[Any]:
    """Values of the form, and of its SourceCard, for another run with the settings of the run in view, beginning with its adapter if that
    is wanted."""
    run = studio.find(name)
    if run is None:
        return [gr.skip()] * (len(fields) + 3)
    values = run.settings.to_form() | ({"adapter.start_from": run.name} if from_adapter else {})
    gr.Info(escape(f"All settings, those under Data included, are now those of run {run.name}."))
    return [*(values[field] for field in fields),
            *source_card.taken_over(studio, run.settings, f"Data is now as run {run.name} chose it, its edits and columns included.")]


def uses(source: str, also: str = "", edits: str = "") -> str:
    """Which pairs a run would use, for the line above Start. Sources and edits that cannot be read are told under their fields."""
    name = source_choices.called(source)
    more = len((also or "").split("\n")) if (also or "").strip() else 0
    mixed = f", mixed with {more} more source{'s' * (more > 1)}" if more else ""
    return f"Learns from {name}{mixed}{', as edited' if (edits or '').strip() else ''} (change it under Data)."


def read_settings(path: str) -> Settings:
    """The settings of an uploaded file. Raises SettingsError for one that holds none."""
    try:
        return Settings.from_file(Path(path))
    except UnicodeDecodeError:
        raise SettingsError({"file": "This file is not text. Choose a settings file of the studio."}) from None


def _complaints(error: SettingsError) -> str:
    """What is wrong, as comments in place of a file."""
    return "\n".join(f"# {name}: {text}" for name, text in error.problems.items())


def build(studio: Studio, data_fields: form.Fields, source: SourceCard, defaults: dict[str, Any]) -> TrainTab:
    """The tab's components and wiring."""
    presets = all_presets()
    with gr.Row():
        preset = Dropdown(list(presets), value=FIRST, label="Preset", elem_id="preset",
                          info="Fills in the settings below and leaves your data as they are. Change what you like afterwards.")
    its_data = gr.Button(visible=False, size="sm", elem_id="preset-data", elem_classes=form.ACTS)
    purpose = gr.Markdown(presets[FIRST].purpose, elem_id="purpose")
    fields: form.Fields = {}
    fields |= form.fields("model", basic=True, values=defaults)
    fields |= form.fields("adapter", "training", basic=True, values=defaults)
    for section, words in SECTIONS.items():
        with gr.Accordion(f"More about {words}", open=False, elem_id=form.fold(section)):
            fields |= form.fields(section, basic=False, values=defaults)
            if section == "training":
                wandb_key = tracker_key.build(fields["training.report_to"])
    with gr.Accordion("Hub access", open=False):
        token = token_field.build(
            "train-token", "For private or gated models and datasets. Kept in memory and handed to the run, never written.")
    everything = data_fields | fields
    now = mirror.of(everything, "form-now")
    complaints = complaints_card.of_settings(studio, now)
    of_data = {name: field for name, field in everything.items() if name in source_choices.OF_DATA}
    settled = {name: field for name, field in everything.items() if name not in of_data}
    if not studio.has_users:
        code_card.build(studio, everything, token)
    with gr.Accordion("Settings as a file", open=False) as as_file:
        code = gr.Code(language="yaml", label="settings.yaml", interactive=False, buttons=["copy", "download"])
        load = gr.UploadButton("Load settings from a file", file_types=[".yaml", ".yml"], size="sm")
        without = gr.Code(language="python", label="train.py: the same without the studio, by TRL", interactive=False,
                          buttons=["copy", "download"], elem_id="script")
    gr.HTML(parts.note("info", gpu.in_words(gpu.cards())), padding=False)
    card = fit_card.build(studio, now, token, complaints)
    using = gr.Markdown(uses(defaults["data.source"]), elem_id="using")
    complaints.build()
    source_card.complete(studio, source, everything)
    question = long_run.Question()
    question.build()
    go = gr.Button("Start training", variant="primary", size="lg", elem_id="start", elem_classes=form.ACTS)
    started = gr.State("")

    def choose(name: str) -> list[Any]:
        if name not in presets:
            return [NO_PRESET, *[gr.skip()] * len(settled)]
        return [presets[name].purpose, *form.updates(presets[name].settings, settled)]

    def with_its_data(name: str) -> list[Any]:
        if name not in presets:
            return refuse("Not taken over", NO_PRESET)
        told = source_card.taken_over(studio, presets[name].settings, f"Data is now that of the preset {name}, number of rows included.")
        return [*form.updates(presets[name].settings, of_data), *told]

    def tell_data(name: str, source_: str, also: str, edits: str) -> tuple[str, gr.Button]:
        its = presets[name].settings.data.source if name in presets else source_
        return uses(source_, also, edits), gr.Button(f"Use this preset's data: {source_choices.called(its)}", visible=its != source_)

    def load_file(path: str) -> list[Any]:
        try:
            settings = read_settings(path)
        except SettingsError as error:
            return [refuse("Settings not loaded", form.in_words(error.problems))] * (len(everything) + 3)
        gr.Info("All settings, those under Data included, are now those of the file.")
        return [*form.updates(settings, everything),
                *source_card.taken_over(studio, settings, f"Data is now as {Path(path).name} says, its edits and columns included.")]

    def show_files(text: str) -> Any:
        values = now.said(text)
        if values is None:
            return gr.skip(), gr.skip()
        try:
            settings = studio.settings_of(values)
        except SettingsError as error:
            return (_complaints(error),) * 2
        try:
            return settings.to_yaml(), script.render(settings) if studio.who().name else script.render(settings, str(practice.MODEL))
        except SettingsError as error:
            return settings.to_yaml(), _complaints(error)

    def start(token: str, key: str, agreed: float = 0.0, **values: Any) -> list[Any]:
        try:
            settings = studio.settings_of(values)
            ready(studio, settings, token, key)
            if asked := long_run.asked(studio, settings, token, agreed):
                return [gr.skip(), *asked]
            return [begin(studio, settings, token, key), *long_run.settled()]
        except StudioError as error:
            return [refuse("Not started", error), *long_run.settled()]

    card.follow(form.fill(preset.input, choose, preset, [purpose, *settled.values()], trigger_mode="always_last", **QUIET))
    card.follow(form.fill(its_data.click, with_its_data, preset, [*of_data.values(), *source.outputs], **QUIET))
    card.follow(form.fill(load.upload, load_file, load, [*everything.values(), *source.outputs], **PRIVATE))
    gr.on([as_file.expand, now.changed().change], show_files, now.text, [code, without], **QUIET, **LATEST)
    told = [data_fields[name] for name in ("data.source", "data.also", "data.edits")]
    gr.on([preset.change, *(field.change for field in told)], tell_data, [preset, *told], [using, its_data], **QUIET)
    complaints.before(go.click, start, [token, wandb_key], [started, *question.outputs])
    complaints.before(question.yes.click, start, [token, wandb_key, question.agreed], [started, *question.outputs])
    return TrainTab(started, everything, complaints, preset, purpose, card.follow)
