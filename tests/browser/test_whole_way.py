"""The whole way, clicked: practice run, curves, reload, finished, compare, push. One studio, one Hub, in order."""

import json
import re

import pytest
from playwright.sync_api import Page, expect

from studio import events, runs
from studio.summary import Summary
from tests.browser.steps import LONG_MS, examine, is_accessible, load, tab, visit
from tests.jobs_at_work import said, until
from tests.tiny_models import saved, tiny_model
from tests.traps import with_code_of_its_own

pytestmark = pytest.mark.long

QUESTIONS = ("How many legs has a spider?", "What is the capital of France?", "How are you?", "What colour is snow?",
             "Is water wet?", "How many days has a week?")
TABS = ("Data", "Train", "Runs", "Compare", "Share")


def steps_drawn(page: Page) -> int:
    """How many steps the loss chart has drawn, read from Plotly's own data."""
    return page.evaluate("""() => {
        const plot = document.querySelector('#chart-loss .js-plotly-plot');
        return plot ? Math.max(0, ...plot.data.map(line => (line.x || []).length)) : 0;
    }""")


@pytest.mark.fault("T26", "T31")
def test_one_click_trains_and_curves_grow_through_a_reload_and_a_killed_server(opened, studio):
    opened.locator("#practice").click()
    expect(opened.get_by_role("tab", name="Runs", exact=True)).to_have_attribute("aria-selected", "true")
    expect(opened.locator("#run-head .badge")).to_contain_text(re.compile("starting|running"))
    opened.get_by_role("button", name="Worker log").click()
    expect(opened.get_by_label("The end of worker.log")).to_have_value(re.compile("Loading weights"))
    opened.wait_for_function("document.querySelector('#chart-loss .js-plotly-plot')?.data?.some(line => line.x?.length > 5)")
    before = steps_drawn(opened)
    opened.wait_for_function(f"Math.max(...document.querySelector('#chart-loss .js-plotly-plot').data.map(l => (l.x||[]).length)) > {before}")
    opened.reload()
    expect(opened.locator("#run-head .badge")).to_contain_text("running")
    opened.wait_for_function(f"Math.max(0, ...(document.querySelector('#chart-loss .js-plotly-plot')?.data || []).map(l => (l.x||[]).length)) > {before}")
    studio.kill()
    studio.start()
    visit(opened, studio.page())
    expect(opened.locator("#run-head .badge")).to_contain_text("finished", timeout=LONG_MS)
    run = runs.listed(studio.runs)[0]
    expect(opened.locator("#run-head")).to_contain_text(run.name)
    expect(opened.locator("#run-head")).to_contain_text("pairs it never saw")
    expect(opened.locator("#run-words")).to_contain_text("The margin has risen")
    expect(opened.locator("#run-samples table").first).to_be_visible()
    opened.get_by_text("How the answers changed").click()
    expect(opened.locator("#run-samples")).to_contain_text("step 68")


def test_a_title_and_notes_stay_with_the_run_through_a_reload(opened, studio):
    run = runs.listed(studio.runs)[0]
    opened.get_by_role("button", name="Title and notes").click()
    opened.locator("#run-title").locator("input, textarea").fill("Friendly <b>answers</b>")
    opened.locator("#run-notes textarea").fill("Ten epochs were too many.")
    opened.locator("#save-about").click()
    expect(opened.locator("#run-head h2")).to_have_text("Friendly <b>answers</b>")
    expect(opened.locator("#run-head .run-title")).to_contain_text(run.name)
    expect(opened.locator("#in-view input")).to_have_value(re.compile(f"Friendly <b>answers</b> · {run.name}"))
    opened.reload()
    expect(opened.locator("#run-head h2")).to_have_text("Friendly <b>answers</b>")
    opened.get_by_role("button", name="Title and notes").click()
    expect(opened.locator("#run-notes textarea")).to_have_value("Ten epochs were too many.")


def test_a_tab_that_is_chosen_while_the_page_still_arrives_stays_in_front(opened):
    for name in ("Compare", "Train"):
        opened.reload(wait_until="commit")
        tab(opened, name)
        expect(opened.locator("#in-view input")).not_to_have_value("")
        opened.wait_for_timeout(500)
        expect(opened.get_by_role("tab", name=name, exact=True)).to_have_attribute("aria-selected", "true")
    opened.goto(opened.url.split("?")[0])
    expect(opened.get_by_role("tab", name="Runs", exact=True)).to_have_attribute("aria-selected", "true")


def test_base_and_tuned_answer_side_by_side_and_differ(opened):
    tab(opened, "Compare")
    question = opened.locator("#question").locator("input, textarea")
    opened.get_by_role("button", name="Sampling").click()
    opened.get_by_label("Temperature").fill("0")  # drawn by lot, both might say the same
    for text in ("What is the capital of France?", "What is 3 plus 4?"):
        expect(question).to_be_enabled()
        question.fill(text)
        question.press("Enter")
        expect(opened.locator("#chat-right").get_by_text(text)).to_be_visible(timeout=LONG_MS)
    expect(opened.locator("#prefer-right")).to_be_visible(timeout=LONG_MS)  # once both have said their last word
    answers = {}
    for side in ("left", "right"):
        bot = opened.locator(f"#chat-{side} .assistant p")
        expect(bot).to_have_count(2)
        answers[side] = bot.all_inner_texts()
    assert answers["left"] != answers["right"]
    # What cannot be asked is told until it is closed, and covers nothing.
    opened.get_by_label("Temperature").fill("9")
    question.fill("How are you?")
    question.press("Enter")
    expect(opened.get_by_text("Not asked")).to_be_visible()
    expect(opened.get_by_text("Temperature: 9 is out of range.")).to_be_visible()
    expect(opened.locator(".toast-body")).to_be_visible()
    expect(opened.locator(".toast-body .timer")).to_have_count(0)
    expect(question).to_have_value("How are you?")
    expect(opened.get_by_text("Error", exact=True)).to_be_hidden()
    assert [opened.locator(f"#chat-{side} .assistant p").all_inner_texts() for side in answers] == list(answers.values())
    opened.locator("#new-chat").click()
    expect(opened.locator("#chat-right")).to_be_hidden()
    expect(opened.locator("#prefer-right")).to_be_hidden()


def test_a_preferred_answer_becomes_a_pair_to_learn_from(opened, studio):
    tab(opened, "Compare")
    question = opened.locator("#question").locator("input, textarea")
    better, alike = opened.locator("#prefer-right"), opened.locator("#collected").get_by_text("Both answered the same")
    for text in QUESTIONS:  # answers are drawn by lot, and now and then both are the same
        expect(question).to_be_enabled()
        question.fill(text)
        question.press("Enter")
        expect(better.or_(alike)).to_be_visible(timeout=LONG_MS)
        if not alike.is_visible():
            break
        expect(better).to_be_hidden()
        opened.locator("#new-chat").click()
    better.click()
    expect(opened.locator("#collected")).to_contain_text("1 pair collected so far")
    tab(opened, "Data")
    opened.locator("#use-collected").click(timeout=LONG_MS)
    examine(opened)
    expect(opened.locator("#pair")).to_contain_text(text)


def test_a_blind_vote_hides_whose_answer_is_whose_until_it_is_given_and_counts(opened, studio):
    run = runs.listed(studio.runs)[0]
    tab(opened, "Compare")
    question = opened.locator("#question").locator("input, textarea")
    opened.get_by_role("button", name="Sampling").click()
    opened.get_by_label("Temperature").fill("0")
    opened.locator("#blind input").check()
    expect(opened.locator("#compare-head")).to_contain_text("told when you have voted")
    named = []
    for votes_so_far, choice in enumerate(("left", "neither"), 1):
        expect(question).to_be_enabled()
        opened.locator("#offered-questions input").click()
        option = opened.get_by_role("option").nth(votes_so_far)
        text = option.get_attribute("aria-label")
        option.click()
        expect(question).to_have_value(text)
        question.press("Enter")
        expect(opened.locator(f"#prefer-{choice}")).to_be_visible(timeout=LONG_MS)
        expect(opened.locator("#chat-left .assistant p")).to_have_count(1)  # each blind question begins a new talk
        told = [opened.locator(f"#chat-{side}").inner_text() for side in ("left", "right")]
        assert [words.split()[0] for words in told] == ["A", "B"] and "base" not in " ".join(told).lower()
        opened.locator(f"#prefer-{choice}").click()
        expect(opened.locator("#collected")).to_contain_text("the next question begins a new talk")
        expect(opened.locator("#prefer-left")).to_be_hidden()
        expect(opened.locator("#chat-left .side")).to_contain_text(re.compile("A: (Base|Tuned)"))
        named.append(opened.locator("#chat-left .side").inner_text().split()[-1])
        expect(opened.locator("#votes")).to_contain_text(f"{votes_so_far} blind vote")
    kept = [json.loads(line)["preferred"] for line in (run.folder / "votes.jsonl").read_bytes().splitlines()]
    assert kept == [{"Base": "base", "Tuned": f"{run.name}@{practice_steps(run)}"}[named[0]], "neither"]
    opened.reload()
    tab(opened, "Compare")
    expect(opened.locator("#votes")).to_contain_text("2 blind votes")


def practice_steps(run) -> int:
    """After how many steps its adapter was saved."""
    return events.last(said(run), events.Saved).step


def test_a_checkpoint_answers_beside_the_run_and_a_kept_question_is_asked_of_both_at_once(opened, studio):
    run = runs.listed(studio.runs)[0]
    tab(opened, "Compare")
    opened.get_by_role("button", name="Sampling").click()
    opened.get_by_label("Temperature").fill("0")  # drawn by lot, an answer may be any
    opened.locator("#compare-first input").click()
    opened.get_by_role("option", name=f"Step {run.checkpointed[0]:,} of the run in view").click()
    expect(opened.locator("#compare-head")).to_contain_text(f"Left: the practice model after step {run.checkpointed[0]} of run {run.name}")
    question = opened.locator("#question").locator("input, textarea")
    question.fill(QUESTIONS[1])
    question.press("Enter")
    expect(opened.locator("#chat-left .side")).to_contain_text(f"Step {run.checkpointed[0]:,}", timeout=LONG_MS)
    expect(opened.locator("#collect")).to_be_visible(timeout=LONG_MS)
    opened.locator("#keep-question").click()
    expect(opened.get_by_text("Kept. You keep 1 question.")).to_be_visible()
    opened.reload()
    tab(opened, "Compare")
    opened.locator("#offered-questions input").click()
    expect(opened.get_by_role("option").first).to_contain_text(QUESTIONS[1])
    opened.keyboard.press("Escape")
    opened.get_by_role("button", name="Sampling").click()
    opened.get_by_label("Temperature").fill("0")
    opened.get_by_role("button", name="All that you keep, at once").click()
    opened.locator("#ask-all").click()
    row = opened.locator("#all-answers tbody tr")
    expect(row.locator("th")).to_have_text(QUESTIONS[1], timeout=LONG_MS)
    expect(opened.locator("#all-answers thead th")).to_have_text(["Question", "Base", "Tuned"])
    expect(row.locator("td").first).to_contain_text("Paris", timeout=LONG_MS)


def test_the_adapter_is_pushed_privately_in_one_commit(opened, hub):
    token = hub.add_user("ada")
    tab(opened, "Share")
    opened.locator("#push-repo").locator("input, textarea").fill("friendly")
    opened.locator("#push-token").locator("input").fill(token)
    opened.locator("#push").click()
    expect(opened.locator("#push-state")).to_contain_text("Pushed to ada/friendly", timeout=LONG_MS)
    repo = hub.repos["ada/friendly"]
    assert repo.private and len(repo.commits) == 2
    assert {"README.md", "adapter_model.safetensors", "adapter_config.json"} <= set(repo.revision().files)
    assert token not in opened.content()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_tab_has_an_accessibility_violation(page, studio, scheme):
    load(page, studio, f"/?__theme={scheme}")
    for name in TABS:
        tab(page, name)
        page.wait_for_timeout(800)
        is_accessible(page)


def test_a_narrow_screen_needs_no_sideways_scrolling(opened):
    opened.set_viewport_size({"width": 390, "height": 844})
    for name in TABS:
        if not opened.get_by_role("tab", name=name, exact=True).is_visible():
            opened.get_by_role("button", name="More tabs").click()
        opened.get_by_role("tab", name=name, exact=True).or_(opened.get_by_role("button", name=name, exact=True)).first.click()
        opened.wait_for_timeout(500)
        assert opened.evaluate("document.documentElement.scrollWidth") <= 390, name


@pytest.mark.fault("T62")
def test_a_model_s_own_code_is_shown_allowed_by_a_box_and_then_run(opened, studio, tmp_path):
    model = with_code_of_its_own(saved(tiny_model("llama"), tmp_path / "own"), tmp_path / "canary")
    tab(opened, "Train")
    field = opened.locator("#field-model-name").locator("input, textarea")
    field.fill(str(model))
    field.blur()
    opened.get_by_role("button", name="Code that a model brings").click()
    opened.locator("#look-at-code").click()
    expect(opened.locator("#code-shown")).to_contain_text("brings 2 Python files")
    opened.locator("#code-shown").get_by_text("modeling_own.py").click()
    expect(opened.locator("#code-shown pre").last).to_contain_text("class OwnForCausalLM")
    assert not (tmp_path / "canary").exists()
    opened.get_by_label("Run the code of").check()
    expect(opened.locator("#code-allowed")).to_contain_text("Allowed")
    is_accessible(opened)
    opened.locator("#start").click()
    expect(opened.get_by_role("tab", name="Runs", exact=True)).to_have_attribute("aria-selected", "true")
    until((tmp_path / "canary").exists)
    opened.locator("#stop").click()
    expect(opened.locator("#run-head .badge")).to_have_text(re.compile("stopped|finished"), timeout=LONG_MS)


def test_a_run_that_was_stopped_is_resumed_by_a_click_or_repeated_with_its_settings(opened, studio):
    tab(opened, "Train")
    beta = opened.locator("#field-training-beta input")
    beta.fill("0.33")
    beta.blur()
    opened.locator("#start").click()
    status = opened.locator("#run-head .badge")
    expect(status).to_have_text("running", timeout=LONG_MS)
    opened.wait_for_function("document.querySelector('#run-head')?.textContent.includes('Step 1')", timeout=LONG_MS)
    opened.locator("#stop").click()
    expect(status).to_have_text("stopped", timeout=LONG_MS)
    resume = opened.locator("#resume")
    expect(resume).to_contain_text("Resume after step")
    taken = int(resume.inner_text().split()[-1])
    resume.click()
    expect(status).to_have_text("running", timeout=LONG_MS)
    run = runs.listed(studio.runs)[0]
    until(lambda: len(Summary(said(run)).steps) > taken)
    opened.locator("#stop").click()
    expect(status).to_have_text("stopped", timeout=LONG_MS)
    assert [event.step for event in Summary(said(run)).steps] == list(range(1, Summary(said(run)).step + 1))
    opened.reload()
    opened.locator("#again").click()
    expect(opened.get_by_role("tab", name="Train", exact=True)).to_have_attribute("aria-selected", "true")
    expect(beta).to_have_value("0.33")
    expect(opened.locator("#fit")).to_contain_text("fits")


@pytest.mark.slow
def test_a_run_that_was_thrown_away_is_put_back_and_in_view_again(opened, studio):
    tab(opened, "Train")
    opened.locator("#start").click()
    head = opened.locator("#run-head")
    opened.locator("#stop").click()
    expect(head.locator(".badge")).to_have_text("stopped", timeout=LONG_MS)
    name = head.locator("h2").inner_text()
    opened.locator("#trash").get_by_role("button", name="Trash").click()
    opened.locator("#throw-away").click()
    expect(head.get_by_text(name)).to_be_hidden()
    opened.locator("#put-back").click()
    expect(head.locator("h2")).to_have_text(name)
