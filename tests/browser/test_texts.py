"""Texts that want to be more: names, cells, log lines and talk with scripts in them are shown as text, and run nowhere."""

import json

import pytest
from playwright.sync_api import Page, expect

from studio import events, jobs, runs
from studio.settings import Settings
from tests.browser.steps import LONG_MS, examine, load, source_is, tab
from tests.tiny_run import tiny_base, tuned_run

SCRIPT = "<script>window.touched = 'script'</script>"
IMAGE = "<img src=x onerror=\"window.touched = 'image'\">"
LINKS = "[read me](javascript:window.touched='link') <a href=\"javascript:window.touched='a'\">here</a> ![spy](http://198.51.100.7/seen.png)"
REST = "<svg onload=\"window.touched='svg'\"></svg><iframe srcdoc=\"<script>parent.touched='frame'</script>\"></iframe> \x1b[31mred\x1b[0m \u202egnp.exe\u202c"
ALL = f"{SCRIPT} {IMAGE} {LINKS} {REST}"


@pytest.fixture
def untouched(page: Page):
    """A page on which nothing of these texts may run, and no link leads into a script."""
    yield page
    assert page.evaluate("window.touched") is None
    assert page.locator("a[href^='javascript:']").count() == 0
    assert page.locator("iframe[srcdoc], svg[onload], img[onerror]").count() == 0


@pytest.mark.parametrize("text", [SCRIPT, IMAGE, REST])
def test_these_texts_do_run_where_they_are_taken_for_markup(page, text):
    page.set_content(f"<body>{text}</body>")
    page.wait_for_function("window.touched")


@pytest.mark.fault("T67")
def test_a_run_s_names_notes_samples_failure_and_log(untouched, studio):
    run = runs.create(studio.runs, Settings.from_form(**{"model.name": f"/models/{IMAGE}", "data.source": f"/pairs/{IMAGE}.jsonl"}))
    for event in (events.Started(device=IMAGE, versions={"torch": SCRIPT}), events.Entered(IMAGE), events.Noted(ALL), events.Planned(pairs=2, held_out=0, steps=1),
                  events.Stepped(1, {"loss": 1.0}), events.Sampled(1, ALL, ALL, ALL), events.Failed(reason=ALL)):
        events.append(jobs.of(run).log, event)
    (run.folder / "worker.log").write_text(ALL, encoding="utf-8")
    load(untouched, studio, f"/?run={run.name}")
    expect(untouched.locator("#run-samples")).to_contain_text(SCRIPT)
    expect(untouched.locator("#run-head")).to_contain_text("[read me](javascript:")
    untouched.get_by_role("button", name="Worker log").click()
    log = untouched.get_by_label("The end of worker.log")
    expect(log).to_have_value(ALL)
    for name in ("Compare", "Share", "Train", "Data"):
        tab(untouched, name)


@pytest.mark.fault("T67", "T13b")
def test_the_cells_and_the_name_of_a_dataset(untouched, studio, tmp_path):
    path = tmp_path / f"{IMAGE.replace('/', '')}.jsonl"
    rows = [{"prompt": f"{at} {ALL}", "chosen": f"yes {at} {ALL}", "rejected": f"no {at} {ALL}", "source": IMAGE} for at in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    load(untouched, studio)
    tab(untouched, "Data")
    source_is(untouched, path)
    examine(untouched)
    expect(untouched.locator("#examination")).to_contain_text("<img src=x")
    untouched.locator("#pair-row input").fill("3")
    untouched.locator("#pair-row input").press("Enter")
    expect(untouched.locator("#pair")).to_contain_text(SCRIPT)
    tab(untouched, "Train")
    expect(untouched.locator("#using")).to_contain_text("Learns from")


@pytest.mark.fault("T67")
def test_why_something_was_not_done(untouched, studio, tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text(json.dumps({"training": {f"{IMAGE} {SCRIPT}": 1}}), encoding="utf-8")
    load(untouched, studio)
    tab(untouched, "Train")
    untouched.get_by_role("button", name="Settings as a file").click()
    with untouched.expect_file_chooser() as chosen:
        untouched.get_by_role("button", name="Load settings from a file").click()
    chosen.value.set_files(path)
    told = untouched.get_by_test_id("toast-text")
    expect(told).to_contain_text("Settings not loaded")
    expect(told).to_contain_text(SCRIPT)


@pytest.mark.fault("T67")
def test_what_is_said_in_a_chat(untouched, studio, tmp_path):
    run = tuned_run(studio.runs, tiny_base(tmp_path / "base"))
    load(untouched, studio, f"/?run={run.name}")
    tab(untouched, "Compare")
    question = untouched.locator("#question").locator("input, textarea")
    expect(question).to_be_enabled()
    question.fill(ALL)
    question.press("Enter")
    for side in ("left", "right"):
        expect(untouched.locator(f"#chat-{side}").get_by_text("read me")).to_be_visible(timeout=LONG_MS)
    expect(question).to_be_enabled(timeout=LONG_MS)
    assert not untouched.evaluate("[...document.querySelectorAll('#chat-left *')].some(one => [...one.attributes].some(a => a.name.startsWith('on')))")
