"""The page: header, the run in view, five tabs. The only module that knows all tabs."""

import json
from typing import Any

import gradio as gr

from studio import about, presets
from studio.errors import StudioError
from studio.runs import Run
from studio.ui import (
    about_card,
    adoption_card,
    api,
    compare_tab,
    data_tab,
    draft,
    form,
    meter_card,
    news,
    parts,
    runs_tab,
    share_tab,
    train_tab,
    trash_card,
    unreadable_card,
)
from studio.ui.choices import Dropdown, once_closed, with_choices
from studio.ui.studio import GOOD_ENOUGH, PRIVATE, QUIET, TEXTS, Studio, refuse

TITLE = "ORPO Studio"
CLAIM = "Teach a language model which answers you prefer."
RUNS_FIRST = """(run) => {
    if (new URLSearchParams(location.search).has("tab")) return {__type__: "update"};
    const untouched = document.querySelector('[role=tab][data-tab-id=data]')?.ariaSelected === "true";
    return run && untouched ? {__type__: "update", selected: "runs"} : {__type__: "update"};
}"""
"""Whoever arrives where there are runs sees them first."""
WELCOME = ("A tiny chat model and a set of preference pairs are already here. Train it on this machine in minutes, "
           "watch the curves grow, then talk to it before and after. No account, no download.")


def listed(studio: Studio, within: float = 0.0) -> list[tuple[str, str]]:
    """The runs for the selector: label with status, name; newest first."""
    return [(f"{about.called(entry.title, entry.run)} ({parts.STATUS_WORDS.get(entry.status, 'unknown')}{_whose(studio, entry.run)})",
             entry.run.name) for entry in studio.entries(within) if not entry.reason]


def _whose(studio: Studio, run: Run) -> str:
    """Whose run it is, where it is somebody else's."""
    return f", {run.owner}'s" if run.owner and run.owner != studio.who().name else ""


def choose(choices: list[tuple[str, str]], *wanted: str | None) -> str | None:
    """The first wanted run that exists, else the newest, else none."""
    names = [name for _, name in choices]
    return next((name for name in (*wanted, *names[:1]) if name in names), None)


def build(studio: Studio) -> gr.Blocks:
    """The whole page over one studio."""
    defaults = presets.all_presets()[presets.FIRST].settings.to_form()
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=False) as page:
        api.declare(studio)  # first, so that its names are free
        seen = news.build()  # of the list of runs
        with gr.Row(elem_classes="topbar", equal_height=True):
            gr.HTML(parts.header(TITLE, CLAIM), padding=False)
            person = gr.HTML("", elem_id="person", padding=False)
            in_view = Dropdown([], label="Run in view", elem_id="in-view", filterable=False, visible=False)
        with gr.Column(visible=False, elem_classes="welcome", elem_id="welcome") as welcome:
            gr.Markdown(WELCOME)
            first = gr.Button("Start the practice run", variant="primary", size="lg", elem_id="practice")
        with gr.Tabs(selected="data") as tabs:
            with gr.Tab("Data", id="data") as of_data:
                data = data_tab.build(studio, defaults)
            with gr.Tab("Train", id="train", render_children=True) as of_train:
                train = train_tab.build(studio, data.fields, data.source, defaults)
            with gr.Tab("Runs", id="runs", render_children=True) as of_runs:
                run_tab = runs_tab.build(studio, in_view, of_runs)
                about_card.build(studio, in_view)
                meter_card.build(studio, page)
                adoption_card.build(studio, train.started)
                trash_card.build(studio, in_view, train.started)
                unreadable_card.build(studio, seen)
            with gr.Tab("Compare", id="compare") as of_compare:
                comparing = compare_tab.build(studio, in_view, of_compare)
            with gr.Tab("Share", id="share") as of_share:
                sharing = share_tab.build(studio, in_view, of_share)
        data_tab.complete(studio, data, train.everything, train.complaints)
        _keep_in_step(page, studio, in_view, welcome, tabs, first, train, seen)
        _look_in_front_only({of_data: None, of_train: None, of_runs: run_tab.watch, of_compare: comparing, of_share: sharing})
        for button, from_adapter in ((run_tab.again, False), (run_tab.further, True)):
            def repeat(name: str | None, from_adapter: bool = from_adapter) -> list[Any]:
                return [*train_tab.again(studio, name, train.everything, from_adapter), gr.Tabs(selected="train")]

            train.follow(form.fill(button.click, repeat, in_view, [*train.everything.values(), *data.source.outputs, tabs], **PRIVATE))
        draft.build(page, studio, data.source, train.everything, train.preset, train.purpose, train.complaints.now)
        draft.tab_in_address(page, tabs, [of_data, of_train, of_runs, of_compare, of_share])
        adoption_card.look_on_arrival(page, studio)
        page.load(lambda: parts.person(studio.who().name), None, person, **QUIET)
    return page


def _look_in_front_only(watches: dict[gr.Tab, gr.Timer | None]) -> None:
    """Let a tab look for news only while it is in front: each look costs the browser and the server some work."""
    timers = [watch for watch in watches.values() if watch is not None]
    for tab, own in watches.items():
        # In the browser: of two answers of the server for two quick clicks, the first could arrive last.
        active = [{"__type__": "update", "active": watch is own} for watch in timers]
        tab.select(None, None, timers, js=f"() => {json.dumps(active)}", **QUIET)


def _keep_in_step(page, studio: Studio, in_view, welcome, tabs, first, train, seen) -> None:
    """The run selector follows the folder; a new run comes into view; a reload finds what was in view.
    """
    remembered = gr.BrowserState("", storage_key="orpo-studio-run", secret="orpo-studio")

    def show(choices: list, name: str | None) -> tuple:
        return gr.Dropdown(choices, value=name, visible=bool(choices)), gr.Column(visible=not choices)

    def load(name: str | None, request: gr.Request) -> tuple:
        choices = listed(studio)
        return show(choices, choose(choices, request.query_params.get("run"), name))  # the first look tells of all that is not a run

    def look(name: str | None) -> str:
        choices = listed(studio, GOOD_ENOUGH)
        gone = name if name not in [listed_name for _, listed_name in choices] else ""
        return news.digest((tuple(choices), tuple(unreadable_card.listed(studio, GOOD_ENOUGH)), gone))

    def follow(name: str | None) -> tuple:
        choices = listed(studio)
        return with_choices(choices, name, choose(choices, name), visible=bool(choices)), gr.Column(visible=not choices)

    def bring_into_view(name: str) -> tuple:
        if not name:
            return (gr.skip(),) * 4
        return *show(listed(studio), name), gr.Tabs(selected="runs"), ""  # so that the same run can be brought into view again

    def practise() -> Any:
        try:
            return train_tab.begin(studio, presets.all_presets()[presets.FIRST].settings)
        except StudioError as error:
            return refuse("Not started", error)

    arrived = page.load(load, remembered, [in_view, welcome], **QUIET)
    # In the browser, which knows whether somebody has chosen a tab meanwhile.
    arrived.then(None, in_view, tabs, js=RUNS_FIRST, **QUIET)
    gr.Timer(2.0).tick(look, in_view, seen, **QUIET, **TEXTS)
    seen.change(follow, in_view, [in_view, welcome], **once_closed(in_view), **QUIET)
    first.click(practise, None, train.started, **PRIVATE)
    train.started.change(bring_into_view, train.started, [in_view, welcome, tabs, train.started], **QUIET)
    news.own(in_view.change).change(lambda name: name, in_view, remembered, **QUIET)
