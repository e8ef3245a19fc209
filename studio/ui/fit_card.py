"""The card above Start: will it fit, how long, how much money; by arithmetic until two tried steps have measured it."""

import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from studio import account, gpu, pace, patience, plan, two_steps
from studio.errors import SettingsError, StudioError
from studio.events import Tried
from studio.fit import Fit, fit, judged
from studio.gpu import Place
from studio.hardware import PRICES
from studio.patience import Wait
from studio.settings import Settings
from studio.shape import Shape, on_hub
from studio.summary import Summary, in_words, size
from studio.two_steps import Trial
from studio.ui import form, parts
from studio.ui.complaints_card import Complaints
from studio.ui.mirror import Mirror
from studio.ui.studio import LATEST, PRIVATE, QUIET, Studio, refuse

KINDS = {"fits": "good", "tight": "warn", "too large": "bad"}
NAMED = ("model.name", "model.revision")
"""The fields that say which model is looked up."""


@dataclass(frozen=True)
class FitCard:
    """The card; `follow` makes it look the model up after an event that has filled the form."""

    follow: Callable[[Dependency], Dependency]


def shown(studio: Studio, values: dict[str, Any]) -> str:
    """The card's inside for the form's values."""
    try:
        settings = studio.settings_of(values)
    except SettingsError as error:
        return _card(parts.note("warn", form.in_words(error.problems)))
    trial = two_steps.trial(studio.root)
    tried = trial.outcome if trial.speaks_of(settings) and not trial.at_work else None
    try:
        shape = studio.shapes.known(settings.model)
    except StudioError as error:
        return _card(parts.note("warn", str(error)) + _steps(trial, settings))
    if shape is None:
        return _card(parts.empty("The model has not been looked up yet. Leave its field, or press Enter in it."))
    place = gpu.place(settings)
    asked = studio, settings, shape, place
    here = _nowhere() if place is None else _measured(*asked, tried) if tried else _estimated(*asked)
    busy = gpu.others_in_words(gpu.others()) if place is not None and place.kind != "cpu" else ""
    told = parts.note("warn", busy) if busy else ""
    if missing := shape.missing(settings.adapter.target_modules):
        told += parts.note("bad", f"Target modules: this model has no {' and no '.join(missing)}. A run stops at that before it trains; "
                                  f"its layers are {', '.join(sorted({one.name for one in shape.linears}))}.")
    return _card(told + here + _planned(studio, settings, tried) + _steps(trial, settings) + _elsewhere(studio, settings, shape, tried))


def _card(body: str) -> str:
    return parts.card("Before you start", body, level=2)


def _line(kind: str, word: str, told: str) -> str:
    return f'<p class="verdict">{parts.mark(kind, word)} <span>{escape(told)}</span></p>'


def _verdict(verdict: str, is_long: bool, told: str) -> str:
    """Whether it fits; what fits and takes days is nothing to be green about."""
    if verdict == "fits" and is_long:
        return _line("warn", "fits, but takes very long", told)
    return _line(KINDS[verdict], verdict, told)


def _nowhere() -> str:
    return _line("info", "no GPU here", "These settings ask for a GPU and this machine has none. Set Device to auto, or use a Space.")


def _where(place: Place) -> str:
    return "in this machine's memory" if place.kind == "cpu" else f"on the {place.name}"


def _measured(studio: Studio, settings: Settings, shape: Shape, place: Place, tried: Tried) -> str:
    # What the trial took is free again: the worst case is its peak against all of it.
    verdict = "fits" if tried.memory <= place.free else judged(tried.memory, place.free)
    told = (f"Measured on the longest pairs: {size(tried.memory)} of {size(place.free)} free {_where(place)}, "
            f"{tried.seconds:.2g} s a step.")
    wait = _wait(studio, settings, shape, place, tried)
    return _verdict(verdict, wait is not None and wait.is_long, told) + f"<p>{escape(_time(studio, settings, wait, tried))}</p>"


def _estimated(studio: Studio, settings: Settings, shape: Shape, place: Place) -> str:
    found = fit(settings, shape, place.free, place.kind)
    told = f"Needs up to about {size(found.need.total)} of {size(place.free)} free {_where(place)}. {found.advice}"
    listed = " · ".join(f"{name} {size(taken)}" for name, taken in found.need.parts.items() if taken >= 5e5)
    wait = _wait(studio, settings, shape, place)
    return (_verdict(found.verdict, wait is not None and wait.is_long, told) + f'<p class="quiet">{escape(listed)}</p>' + _in_ram(found)
            + f"<p>{escape(_time(studio, settings, wait))}</p>")


def _in_ram(found: Fit) -> str:
    """How much RAM embedding matrix and head take that are offloaded, and whether it has room for them."""
    if not found.offloaded:
        return ""
    told = f"The embedding matrix and the head stay in RAM and take {size(found.offloaded)} there"
    free = gpu.free_ram()
    if found.offloaded > free:
        return parts.note("warn", f"{told}, of which {size(free)} are free. Close other programs, or set Offload embeddings to off.")
    return f"<p>{escape(told)}. They are copied to the card as they are needed, which takes some time.</p>"


def _wait(studio: Studio, settings: Settings, shape: Shape, place: Place, tried: Tried | None = None) -> Wait | None:
    return patience.expected(studio.root, settings, shape, place, lambda log: studio.readings.of(log).said, tried)


def _time(studio: Studio, settings: Settings, wait: Wait | None, tried: Tried | None = None) -> str:
    if wait is None:
        return "How long it takes is not known for this card. Try two steps to measure it."
    pairs = tried.pairs if tried else pace.size_of(studio.root, settings).pairs
    if pairs is None:
        return f"Time: about {wait.forecast.in_words()} for 1,000 pairs, by {wait.forecast.how}."
    return (f"Time: about {wait.forecast.in_words()} for {plan.steps_for(settings.training, pairs):,} steps and what is measured between "
            f"them, by {wait.forecast.how}.")


def _planned(studio: Studio, settings: Settings, tried: Tried | None) -> str:
    """What of the settings is fitted to the size of the data, or makes no sense for it, as far as the size is known."""
    of = pace.size_of(studio.root, settings)
    pairs = tried.pairs if tried else of.pairs
    if pairs is None or of.held_out is None:
        return ""
    return "".join(parts.note("warn", words) for words in plan.plan(settings, pairs, of.held_out).remarks)


def _steps(trial: Trial, settings: Settings) -> str:
    """Where the two steps stand, or how they failed with these settings."""
    summary = Summary(trial.said)
    if trial.is_stopping:
        return parts.progress(None, None, "Stopping the two steps …")
    if trial.at_work:
        far = f", {in_words(summary.progress)}" if summary.progress else ""
        return parts.progress(None, None, f"Trying two steps: {summary.phase or 'starting'}{far}. A training waits until they are done.")
    if trial.speaks_of(settings) and trial.status == "stopped":
        return parts.note("info", "The two steps were stopped before they had measured anything.")
    if trial.speaks_of(settings) and trial.status in ("failed", "crashed"):
        return parts.note("bad", summary.failure or "The two steps ended without a word, most likely because the memory was full. "
                                                    "Lower the maximum length, then try again.")
    return ""


def _elsewhere(studio: Studio, settings: Settings, shape: Shape, tried: Tried | None) -> str:
    of = pace.size_of(studio.root, settings)
    of = pace.Size(tried.pairs, tried.all_tokens / tried.pairs, of.held_out) if tried else of
    offers = pace.offers(settings, shape, of, tried.longest if tried else None)
    if not offers:
        return "<p>It fits on none of the Spaces' hardware.</p>"
    rows = [(offer.hardware.name, size(offer.hardware.memory), offer.forecast.in_words(), _dollars(offer.dollars)) for offer in offers]
    what = "for 1,000 pairs" if of.pairs is None else "for the whole run"
    note = f"Roughly, {what}, at {PRICES.source}; idle time is paid as well."
    return (f'<details class="noted"><summary>Time and money on a Hugging Face Space: {_from(offers)}</summary>'
            f'<p class="quiet">{note}</p>{parts.table(("Hardware", "Memory", "Time", "Price"), rows)}</details>')


def _from(offers: list[pace.Offer]) -> str:
    return "free of charge" if offers[0].hardware.dollars == 0 else _dollars(offers[0].dollars)


def _dollars(ends: tuple[float, float]) -> str:
    low, high = ends
    if high == 0:
        return "free"
    return "under $0.01" if high < 0.01 else f"up to ${high:,.2f}" if low < 0.01 else f"${low:,.2f} to ${high:,.2f}"


def build(studio: Studio, now: Mirror, token: Component, complaints: Complaints) -> FitCard:
    """The card's components and wiring."""
    # The page is the same for everybody: what stands here of somebody's runs comes with the first tick.
    inside = gr.HTML(_card(parts.empty("Working out whether this run fits, and how long it takes …")), elem_id="fit", padding=False)
    tried = gr.Button("Try two steps", size="sm", elem_id="two-steps", elem_classes=form.ACTS)
    stop = gr.Button("Stop the two steps", size="sm", visible=False, elem_id="stop-two-steps")
    watch, looked = gr.Timer(1.0), gr.Textbox(visible="hidden")

    def count(text: str) -> Any:
        values = now.said(text)
        return gr.skip() if values is None else shown(studio, values)

    def look_up(token: str, *named: str) -> str:
        with suppress(StudioError):  # the card tells what there is to be told
            model = studio.settings_of(dict(zip(NAMED, named, strict=True))).model
            if on_hub(model):  # a model on this machine needs no request to the Hub
                PRICES.refresh()
            studio.shapes.find(model, token or None)
        return secrets.token_hex(4)

    def begin(token: str, **values: Any) -> list[Any]:
        try:
            two_steps.begin(studio.queue, studio.root, studio.settings_of(values),
                            studio.handed(account.entered(token)))
        except StudioError as error:
            return [refuse("Not tried", error)] * 2
        return [shown(studio, values), gr.Timer(active=True)]

    def follow_trial(text: str) -> tuple[Any, ...]:
        trial = two_steps.trial(studio.root)
        return (count(text), gr.Timer(active=trial.at_work), gr.Button(interactive=not trial.at_work),
                gr.Button(visible=trial.at_work, interactive=not trial.is_stopping))

    def stop_trial(text: str) -> tuple[Any, ...]:
        two_steps.stop(studio.root)
        return follow_trial(text)

    named = [now.fields[name] for name in NAMED]
    asking = {"inputs": [token, *named], "outputs": looked}
    typed = [trigger for field in named for trigger in (field.blur, field.submit)]
    gr.on(typed, look_up, **asking, concurrency_limit=2, **PRIVATE, **LATEST)
    # The Hub takes its time, and the form may say something else by then: what is shown is always worked out for the form as it is.
    gr.on([now.changed().change, looked.change], count, now.text, inside, **PRIVATE, **LATEST)
    complaints.before(tried.click, begin, [token], [inside, watch])
    following = [inside, watch, tried, stop]
    watch.tick(follow_trial, now.text, following, **QUIET)
    stop.click(stop_trial, now.text, following, **PRIVATE)

    return FitCard(lambda event: event.then(look_up, **asking, **PRIVATE))
