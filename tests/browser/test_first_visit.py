"""The page before there is any run: what it says, how the form is filled, and what Start refuses."""

import re
from collections import Counter

import pytest
from playwright.sync_api import TimeoutError, expect

from studio import presets, runs
from tests.browser.steps import source_is, tab
from tests.hub_wire import LATE
from tests.jobs_at_work import until
from tests.tiny_models import saved, tiny_model


def test_every_tab_says_the_next_step_when_there_is_no_run(opened):
    expect(opened.locator("#practice")).to_be_visible()
    for name, words in (("Data", "Examine the pairs"), ("Runs", "No run yet"), ("Compare", "Choose a run"), ("Share", "Choose a run")):
        tab(opened, name)
        expect(opened.get_by_text(re.compile(words)).locator("visible=true").first).to_be_visible()
    tab(opened, "Compare")
    expect(opened.locator("#question").locator("input, textarea")).to_be_disabled()  # there is nobody to ask


def test_the_page_is_interactive_within_three_seconds(page, studio):
    page.goto(studio.page())
    expect(page.locator("#practice")).to_be_visible()
    page.reload(wait_until="commit")
    expect(page.locator("#practice")).to_be_enabled()
    seconds = page.evaluate("performance.now()") / 1000
    print(f"interactive after {seconds:.2f} s")
    assert seconds < 3


def test_a_dataset_that_is_not_there_is_told_under_the_button(opened):
    source_is(opened, "nobody/nothing")
    opened.locator("#examine").click()
    expect(opened.locator("#examination")).to_contain_text("nobody/nothing was not found", timeout=30_000)


def test_a_complaint_stands_above_start_and_no_run_is_made(opened, studio):
    tab(opened, "Train")
    batch = opened.locator("#field-training-batch_size input")
    batch.fill("0")
    batch.blur()
    complaint = opened.locator("#fit").get_by_text("0 is out of range. Enter at least 1.")
    expect(complaint).to_be_visible()
    opened.locator("#start").click()
    opened.wait_for_timeout(2500)
    expect(complaint).to_be_visible()
    assert runs.listed(studio.runs) == []


def test_what_the_hub_says_late_does_not_hide_what_was_entered_since(opened, hub, tmp_path):
    hub.add_model("ada/tiny", saved(tiny_model("llama"), tmp_path))
    hub.fail_next("info", LATE)
    tab(opened, "Train")
    expect(opened.locator("#fit")).to_contain_text("fits")
    name, batch = opened.locator("#field-model-name").locator("input, textarea"), opened.locator("#field-training-batch_size input")
    name.fill("ada/tiny")
    name.blur()
    batch.fill("0")
    batch.blur()
    until(lambda: opened.wait_for_timeout(500) or any("ada/tiny" in path and "resolve" in path for _, path in hub.requests), 20)
    opened.wait_for_timeout(2000)
    expect(opened.locator("#fit")).to_contain_text("0 is out of range")
    batch.fill("1")
    batch.blur()
    expect(opened.locator("#fit .verdict")).to_contain_text("Needs up to about")


def test_a_preset_fills_the_form_and_the_file(opened):
    tab(opened, "Train")
    opened.get_by_role("button", name="Settings as a file").click()
    file, script = (opened.locator(f".cm-content[data-language={language}]") for language in ("yaml", "python"))
    expect(file).to_contain_text("name: practice")
    opened.locator("#preset input").click()
    opened.get_by_role("option", name="llama-3-8b-tutorial").click()
    expect(opened.locator("#field-model-name").locator("input, textarea")).to_have_value("meta-llama/Meta-Llama-3-8B")
    expect(opened.locator("#purpose")).to_contain_text("tutorial")
    expect(file).to_contain_text("name: meta-llama/Meta-Llama-3-8B")
    script.evaluate("editor => editor.closest('.cm-scroller').scrollTop = 700")  # the editor draws the lines in sight only
    expect(script).to_contain_text("'meta-llama/Meta-Llama-3-8B'")
    opened.locator("#start").click()
    expect(opened.get_by_text("A GPU was asked for")).to_be_visible()


def test_a_preset_sets_off_each_event_a_few_times_however_many_fields_it_changes(opened):
    """Each field tells of its change, and what follows from the form is worked out once they have settled."""
    tab(opened, "Train")
    expect(opened.locator("#fit")).to_contain_text("fits")
    following, asked = set(opened.evaluate("""() => {
        const form = window.gradio_config.components.find(one => one.props.elem_id === "form-now").id, { dependencies } = window.gradio_config;
        const told = dependencies.filter(one => one.targets.some(([id]) => id === form)).flatMap(one => one.outputs);
        return dependencies.filter(one => one.backend_fn && one.targets.some(([id]) => told.includes(id))
            && !one.targets.some(([, event]) => event === "tick")).map(one => one.id); }""")), []
    opened.on("request", lambda request: asked.append(request.post_data_json) if request.method == "POST" else None)
    opened.locator("#preset input").click()
    opened.get_by_role("option", name="gpu-24gb").click()
    until(lambda: opened.wait_for_timeout(500) or following <= {one["fn_index"] for one in asked}, 20)
    opened.wait_for_timeout(2000)
    often = Counter(one["fn_index"] for one in asked if one["fn_index"] in following)
    first, chosen = (presets.all_presets()[name].settings.to_form() for name in (presets.FIRST, "gpu-24gb"))
    assert len(following) >= 4 and max(often.values()) <= sum(first[name] != chosen[name] for name in first) / 3
    assert all(len(one["data"]) < 20 for one in asked), "an event that takes in every field keeps the browser busy"


def test_start_waits_for_what_fills_the_form_and_the_last_choice_counts(opened):
    """A preset's values come from the server: a start in between would use those before."""
    tab(opened, "Train")
    preset = opened.evaluate("window.gradio_config.components.find(one => one.props.elem_id == 'preset').id")
    held, start = [], opened.locator("#start")

    def choose(name):
        opened.locator("#preset input").click()
        opened.get_by_role("option", name=name).click()

    opened.route("**/run/predict*", lambda route: held.append(route) if route.request.post_data_json["trigger_id"] == preset
                 else route.continue_())
    choose("gpu-24gb")
    expect(start).to_have_attribute("inert", "")
    with pytest.raises(TimeoutError):
        start.click(timeout=1000)
    choose("llama-3-8b-tutorial")  # while the answer to the first choice is awaited
    def answered():
        while held:
            held.pop().continue_()
        opened.wait_for_timeout(500)  # the second choice is sent a moment after the answer to the first
        return not held and start.get_attribute("inert") is None

    until(answered, 20)
    start.click()
    expect(opened.get_by_text("A GPU was asked for")).to_be_visible()
    expect(opened.locator("#field-model-name").locator("input, textarea")).to_have_value("meta-llama/Meta-Llama-3-8B")
    choose("practice")
    until(lambda: opened.wait_for_timeout(50) or held, 20)
    for route in held:
        route.fulfill(status=500, json={"error": "it broke"})
    start.click(trial=True)  # what stands there can be started all the same


def test_unfolding_the_form_changes_nothing(opened):
    """A number that is empty must not be 0 for having been looked at."""
    tab(opened, "Train")
    expect(opened.locator("#fit")).to_contain_text("fits")
    for part in ("the model", "the adapter", "training", "evaluation"):
        opened.get_by_role("button", name=f"More about {part}").click()
    steps = opened.locator("#field-training-max_steps input")
    expect(steps).to_have_value("")
    expect(opened.locator("#field-training-seed input")).to_have_value("42")
    opened.wait_for_timeout(1500)  # the card looks again a moment after a change
    expect(opened.locator("#fit")).to_contain_text("fits")
    steps.fill("0")
    steps.blur()
    expect(opened.locator("#fit")).to_contain_text("Maximum steps: 0 is out of range. Enter at least 1.")
    steps.fill("")
    steps.blur()
    expect(opened.locator("#fit")).to_contain_text("fits")


def test_a_tab_looks_for_news_only_while_it_is_in_front(opened):
    asked = []
    opened.on("request", lambda request: asked.append(request.post_data_json["fn_index"]) if "/run/predict" in request.url else None)

    def asked_each_second(name: str) -> set[int]:
        tab(opened, name)
        opened.wait_for_timeout(800)  # the last look of the tab before
        asked.clear()
        opened.wait_for_timeout(3500)
        return {event for event in asked if asked.count(event) > 2}

    of_runs, of_share = (asked_each_second(name) for name in ("Runs", "Share"))
    assert of_runs and of_share and not of_runs & of_share
