"""Compare in a browser: what is asked and answered is kept to the byte, the lists hold what can be chosen, a vote can be undone."""

import json
import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from studio import card, collected, events, jobs, runs, votes
from tests.browser.steps import LONG_MS, load, moved, running, tab
from tests.jobs_at_work import practice, until
from tests.tiny_run import tiny_base, tuned_run

CODE = "    Fix this {{this}} ${7*7} <b>bold</b> &amp;:\n\tif x:\n\t\treturn 1\n\n"
SYSTEM = "  Answer in one word.\n\tNever in two.\n"


@pytest.fixture(scope="module")
def run(studio, tmp_path_factory):
    """A run on a tiny base, which answers at once."""
    return moved(studio, tuned_run(tmp_path_factory.mktemp("elsewhere"), tiny_base(tmp_path_factory.mktemp("base"))))


@pytest.fixture(scope="module")
def failed(studio, tmp_path_factory):
    """A run that has no adapter."""
    failed = runs.create(tmp_path_factory.mktemp("failed"), practice())
    events.append(jobs.of(failed).log, events.Failed(reason="The base was not found. Choose another one."))
    return moved(studio, failed)


def ask(page: Page, text: str) -> None:
    """Ask both, and wait until both have answered."""
    question = page.locator("#question").locator("input, textarea")
    expect(question).to_be_enabled()
    question.fill(text)
    question.press("Enter")
    until(lambda: page.wait_for_timeout(50) or said(page, "right", "user")[-1:] == [text])  # the answers before it are judged no more
    expect(page.locator("#collect")).to_be_visible(timeout=LONG_MS)
    expect(question).to_be_enabled()


def pairs(studio) -> list[dict]:
    """The pairs that were collected."""
    file = collected.path(studio.runs)
    return [json.loads(line) for line in file.read_bytes().splitlines()] if file.exists() else []


def said(page: Page, side: str, role: str) -> list[str]:
    """What one side shows of a role's turns, character by character."""
    return page.locator(f"#chat-{side} .{role} p").evaluate_all("found => found.map(each => each.textContent)")


def view(page: Page, name: str) -> None:
    """Bring a run into view."""
    page.locator("#in-view input").click()
    page.get_by_role("option", name=name).click()


def test_compare_survives_a_run_without_an_adapter_that_comes_into_view(page, studio, run, failed):
    load(page, studio, f"/?run={run.name}")
    tab(page, "Compare")
    expect(page.locator("#compare-first input")).to_have_value("Base, as it was before training")
    view(page, failed.name)
    expect(page.locator("#compare-head")).to_contain_text("no adapter yet")
    expect(page.locator("#compare-first")).to_be_hidden()
    view(page, run.name)
    expect(page.locator("#compare-first input")).to_have_value("Base, as it was before training")
    expect(page.locator("#compare-second input")).to_have_value("Tuned, the run in view")
    expect(page.locator("#compare-head")).to_contain_text(run.name)
    ask(page, "How many legs has a spider?")
    expect(page.get_by_text("is not in the list of choices")).to_be_hidden()


def test_a_question_that_waits_for_another_page_s_answers_shows_that_it_waits(page, studio, run):
    load(page, studio, f"/?run={run.name}")
    tab(page, "Compare")
    ask(page, "First?")
    other = page.context.new_page()
    load(other, studio, f"/?run={run.name}")
    tab(other, "Compare")
    chat, = running(studio, "studio.engine.chat")
    chat.suspend()
    try:
        for asking, text in ((page, "Second?"), (other, "Third?")):
            question = asking.locator("#question").locator("input, textarea")
            question.fill(text)
            question.press("Enter")
            until(lambda asking=asking, text=text: asking.wait_for_timeout(50) or said(asking, "right", "user")[-1:] == [text], 10)
            expect(question).to_be_disabled()
    finally:
        chat.resume()
    for asking in (page, other):
        expect(asking.locator("#collect")).to_be_visible(timeout=LONG_MS)
    other.close()


def test_a_run_that_is_chosen_while_the_list_of_runs_is_looked_at_stays_in_view(page, studio, run, failed):
    held, following = [], []

    def hold(route):
        held.append(route) if route.request.post_data_json["fn_index"] in following else route.continue_()

    page.route("**/run/predict*", hold)
    page.goto(studio.page(f"/?run={run.name}"))
    following += page.evaluate("""() => {
        const view = window.gradio_config.components.find(one => one.props.elem_id === "in-view").id;
        return window.gradio_config.dependencies.filter(one => one.outputs.includes(view) && one.outputs.length === 2
            && one.targets.some(([, event]) => event === "change")).map(one => one.id); }""")
    until(lambda: page.wait_for_timeout(200) or held, 20)  # the first look at the list, which asks what to show
    view(page, failed.name)
    tab(page, "Compare")
    expect(page.locator("#compare-head")).to_contain_text("no adapter yet")
    held.pop().continue_()
    page.wait_for_timeout(1500)
    expect(page.locator("#compare-head")).to_contain_text("no adapter yet")


def test_a_list_that_is_open_gets_other_choices_once_it_is_closed(page, studio, run, failed, tmp_path):
    load(page, studio, f"/?run={run.name}")
    page.locator("#in-view input").click()
    offered = page.locator("#in-view [role=option]")
    expect(offered.filter(has_text=run.name)).to_be_visible()
    before = offered.count()
    new = moved(studio, runs.create(tmp_path, practice()))
    page.wait_for_timeout(4500)  # the list is looked at every two seconds
    assert offered.count() == before

    def is_offered() -> bool:
        page.locator("h1").first.click()
        page.locator("#in-view input").click()
        return offered.filter(has_text=new.name).count() > 0

    page.keyboard.press("Escape")
    until(lambda: page.wait_for_timeout(1500) or is_offered(), 20)
    shutil.rmtree(new.folder)


def test_notes_that_are_being_written_are_not_undone_by_those_that_are_read(page, studio, run):
    held = []
    load(page, studio, f"/?run={run.name}")
    page.wait_for_timeout(3000)
    page.route("**/run/predict*", lambda route: held.append(route))
    page.get_by_role("button", name="Title and notes").click()
    until(lambda: page.wait_for_timeout(200) or held, 20)
    page.locator("#run-notes textarea").fill("Ten epochs were too many.")
    for route in held:
        route.continue_()
    page.wait_for_timeout(1000)
    expect(page.locator("#run-notes textarea")).to_have_value("Ten epochs were too many.")


def test_what_is_asked_and_answered_is_kept_to_the_byte_and_shown_as_text(page, studio, run):
    before = len(pairs(studio))
    load(page, studio, f"/?run={run.name}")
    tab(page, "Compare")
    ask(page, CODE)
    assert said(page, "left", "user") == said(page, "right", "user") == [CODE]
    page.locator("#prefer-right").click()
    expect(page.locator("#collected")).to_contain_text("Kept as a pair")
    kept = pairs(studio)[before]
    assert kept["prompt"] == [{"role": "user", "content": CODE}]
    answers = [kept[part][-1]["content"].replace("\0", "") for part in ("chosen", "rejected")]  # HTML knows no NUL
    assert answers == [*said(page, "right", "assistant"), *said(page, "left", "assistant")]
    page.locator("#keep-question").click()
    expect(page.get_by_text("Kept. You keep 1 question.")).to_be_visible()
    page.reload()
    tab(page, "Compare")
    page.locator("#offered-questions input").click()
    page.get_by_role("option", name="Fix this").click()
    expect(page.locator("#question textarea")).to_have_value(CODE)


def test_a_system_prompt_is_filled_from_the_pairs_read_by_both_and_kept_with_the_pair(page, studio, run, tmp_path):
    with_system = moved(studio, tuned_run(tmp_path, Path(run.settings.model.name)))
    events.append(jobs.of(with_system).log, events.Planned(pairs=30, held_out=8, steps=2, system=SYSTEM))
    before = len(pairs(studio))
    load(page, studio, f"/?run={with_system.name}")
    tab(page, "Compare")
    field = page.locator("#system-prompt textarea")
    expect(field).to_have_value(SYSTEM)
    ask(page, "Why?")
    assert said(page, "left", "system") == said(page, "right", "system") == [SYSTEM]
    page.locator("#prefer-left").click()
    expect(page.locator("#collected")).to_contain_text("Kept as a pair")
    assert pairs(studio)[before]["prompt"] == [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "Why?"}]
    field.fill("")
    ask(page, "How?")
    assert said(page, "right", "system") == [] and said(page, "right", "user") == ["How?"], "another system prompt begins a new chat"


def test_a_blind_vote_is_taken_back_after_a_reload_with_its_pair_and_its_count_in_the_card(page, studio, run):
    load(page, studio, f"/?run={run.name}")
    tab(page, "Compare")
    page.locator("#blind input").check()
    ask(page, "What is the capital of France?")
    before = len(pairs(studio))
    page.locator("#prefer-left").click()
    expect(page.locator("#votes")).to_contain_text("1 blind vote")
    assert len(pairs(studio)) == before + 1 and "Blind votes" in card.render(run, "adapter", "ada/tuned")
    page.reload()
    tab(page, "Compare")
    listed = page.locator("#judgements li").first
    expect(listed).to_contain_text("What is the capital of France?")
    expect(listed).to_contain_text(re.compile("Blind vote: (Base|Tuned), a pair was kept"))
    listed.get_by_role("button").click()
    expect(page.locator("#collected")).to_contain_text("Undone. The vote and its pair are gone")
    expect(page.locator("#votes")).not_to_contain_text("blind vote")
    expect(page.locator("#judgements")).not_to_contain_text("Blind vote")
    assert len(pairs(studio)) == before and (run.folder / votes.FILE).read_bytes() == b""
    assert "Blind votes" not in card.render(run, "adapter", "ada/tuned")
