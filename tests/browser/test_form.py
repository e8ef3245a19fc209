"""The form on the page: whose choices it shows, what a preset leaves alone, what stays said, what a reload finds again."""

import json
import re

from playwright.sync_api import expect

from studio import drafts, fingerprints, runs
from studio.preferences.mix import Part
from studio.settings import Settings
from tests.browser.steps import examine, is_accessible, source_is, tab
from tests.jobs_at_work import until


def row(number, **more):
    return {"prompt": f"Why {number}?", "chosen": f"Because of {number * 31}.", "rejected": f"No, {number}."} | more


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def field(page, name):
    return page.locator(f"#field-{name.replace('.', '-')}").locator("input, textarea")


def unfold_data(page):
    page.get_by_role("button", name=re.compile("Further sources")).click()


def test_edits_go_with_their_file_and_come_back_with_it_and_both_is_said(opened, tmp_path):
    one, two = write(tmp_path / "one.jsonl", [*map(row, range(40)), row(3)]), write(tmp_path / "two.jsonl", map(row, range(500, 540)))
    source_is(opened, one)
    unfold_data(opened)
    edits, told = field(opened, "data.edits"), opened.locator("#source-told")
    examine(opened)
    opened.get_by_role("button", name=re.compile("^Drop 1 repeat")).click()
    expect(edits).to_have_value("drop duplicates")
    source_is(opened, two)
    expect(edits).to_have_value("")
    expect(told).to_contain_text("one.jsonl, and back when you choose it again: 1 edit. Nothing has been chosen for two.jsonl yet.")
    expect(opened.locator("#undo-edit")).to_be_hidden()
    source_is(opened, one)
    expect(edits).to_have_value("drop duplicates")
    expect(told).to_contain_text("Brought back for one.jsonl: 1 edit")
    opened.locator("#undo-edit").click()
    expect(edits).to_have_value("")


def test_a_file_of_settings_with_edits_of_other_data_is_told_and_its_edits_are_removed_by_a_click(opened, tmp_path, studio):
    one, two = write(tmp_path / "one.jsonl", map(row, range(40))), write(tmp_path / "two.jsonl", map(row, range(500, 540)))
    settings = Settings.from_form(**{"data.source": str(two), "data.edits": "swap 23",
                                     "data.edits_for": str(fingerprints.of(Part(str(one))))})
    (tmp_path / "kept.yaml").write_text(settings.to_yaml(), encoding="utf-8")
    tab(opened, "Train")
    opened.get_by_role("button", name="Settings as a file").click()
    with opened.expect_file_chooser() as chosen:
        opened.get_by_role("button", name="Load settings from a file").click()
    chosen.value.set_files(tmp_path / "kept.yaml")
    expect(opened.get_by_text("All settings, those under Data included, are now those of the file.")).to_be_visible()
    opened.locator("#start").click()
    expect(opened.get_by_text("Not started. The edits were made for")).to_be_visible()
    tab(opened, "Data")
    expect(opened.locator("#source-told")).to_contain_text("Data is now as kept.yaml says")
    expect(opened.locator("#examination")).to_contain_text("one.jsonl, and these are")
    opened.locator("#remove-edits").click()
    expect(opened.locator("#examination .verdict")).to_be_visible(timeout=60_000)
    unfold_data(opened)
    expect(field(opened, "data.edits")).to_have_value("")


def test_a_preset_leaves_the_data_alone_and_offers_its_own(opened, tmp_path):
    path = write(tmp_path / "mine.jsonl", map(row, range(40)))
    source_is(opened, path)
    unfold_data(opened)
    field(opened, "data.edits").fill("drop 7")
    for name, value in (("data.held_out", "0.2"), ("data.prompt_column", "prompt")):
        field(opened, name).fill(value)
        field(opened, name).blur()
    tab(opened, "Train")
    opened.locator("#preset input").click()
    opened.get_by_role("option", name="llama-3-8b-tutorial").click()
    expect(field(opened, "model.name")).to_have_value("meta-llama/Meta-Llama-3-8B")
    expect(opened.locator("#using")).to_contain_text("Learns from mine.jsonl, as edited")
    its = opened.locator("#preset-data")
    expect(its).to_have_text("Use this preset's data: mlabonne/orpo-dpo-mix-40k")
    tab(opened, "Data")
    for name, value in {"data.source": str(path), "data.edits": "drop 7", "data.held_out": "0.2", "data.prompt_column": "prompt"}.items():
        expect(field(opened, name)).to_have_value(value)
    tab(opened, "Train")
    its.click()
    expect(opened.locator("#using")).to_have_text("Learns from mlabonne/orpo-dpo-mix-40k (change it under Data).")
    expect(its).to_be_hidden()
    tab(opened, "Data")
    for name, value in {"data.rows": "1000", "data.held_out": "0.01", "data.edits": ""}.items():
        expect(field(opened, name)).to_have_value(value)
    source_is(opened, path)
    expect(field(opened, "data.edits")).to_have_value("drop 7")
    expect(field(opened, "data.held_out")).to_have_value("0.2")


def complaint(page, name):
    return page.locator(f"#field-{name.replace('.', '-')} .info-text strong")


def test_what_is_wrong_stays_said_in_its_field_and_above_start_until_it_is_mended(opened, studio):
    tab(opened, "Train")
    for name, value in (("training.batch_size", "0"), ("training.learning_rate", "5")):
        field(opened, name).fill(value)
        field(opened, name).blur()
    opened.get_by_role("button", name="More about evaluation").click()
    opened.locator("#start").scroll_into_view_if_needed()
    opened.locator("#start").click()
    above = opened.locator("#complaints")
    expect(above.locator("li")).to_have_text(["Learning rate: 5 is out of range. Enter at most 1.", "Batch: 0 is out of range. Enter at least 1."])
    expect(field(opened, "training.learning_rate")).to_be_focused()
    expect(field(opened, "training.learning_rate")).to_be_in_viewport()
    opened.wait_for_timeout(3000)  # longer than any timer takes to answer
    for name, words in (("training.batch_size", "0 is out of range. Enter at least 1."), ("training.learning_rate", "5 is out of range.")):
        expect(complaint(opened, name)).to_contain_text(words)
        expect(field(opened, name)).to_have_attribute("aria-invalid", "true")
    field(opened, "training.learning_rate").fill("0.001")
    field(opened, "training.learning_rate").blur()
    expect(above.locator("li")).to_have_count(1)
    expect(complaint(opened, "training.learning_rate")).to_have_count(0)
    expect(complaint(opened, "training.batch_size")).to_be_visible()
    above.get_by_role("link", name="Batch").click()
    expect(field(opened, "training.batch_size")).to_be_focused()
    field(opened, "training.batch_size").fill("2")
    field(opened, "training.batch_size").blur()
    expect(above.locator("li")).to_have_count(0)
    assert not runs.listed(studio.runs)


def test_a_complaint_about_a_folded_field_unfolds_it_and_one_about_data_leads_there(opened):
    unfold_data(opened)
    field(opened, "data.edits").fill("drop everything")
    unfold_data(opened)
    tab(opened, "Train")
    opened.get_by_role("button", name="More about training").click()
    field(opened, "training.weight_decay").fill("7")
    opened.get_by_role("button", name="More about training").click()
    opened.locator("#start").click()
    expect(field(opened, "training.weight_decay")).to_be_focused()
    is_accessible(opened)
    opened.locator("#complaints").get_by_role("link", name="Edits").click()
    expect(field(opened, "data.edits")).to_be_focused()
    expect(complaint(opened, "data.edits")).to_contain_text("names nothing that can be edited")
    field(opened, "data.edits").fill("")
    tab(opened, "Train")
    expect(opened.locator("#complaints li")).to_have_count(1)


def test_a_push_that_cannot_be_is_said_in_its_field_and_stays(opened):
    tab(opened, "Share")
    repo = opened.locator("#push-repo").locator("input, textarea")
    repo.fill("no good name!")
    opened.locator("#push").click()
    said = opened.locator("#push-complaints li")
    expect(said).to_contain_text("Repository: 'no good name!' cannot be a repository's name.")
    opened.wait_for_timeout(3000)
    expect(opened.locator("#push-repo .info-text strong")).to_be_visible()
    expect(said).to_have_count(1)
    repo.fill("good-name")
    repo.blur()
    expect(said).to_have_count(0)


def test_a_reload_finds_data_edits_settings_and_tab_and_a_second_page_is_one_of_its_own(opened, tmp_path, studio):
    path = write(tmp_path / "mine.jsonl", map(row, range(41)))  # no other test's file, whose choices would be brought
    source_is(opened, path)
    unfold_data(opened)
    for name, value in (("data.edits", "drop 7"), ("data.prompt_column", "prompt")):
        field(opened, name).fill(value)
        field(opened, name).blur()
    tab(opened, "Train")
    opened.get_by_role("button", name="More about training").click()
    for name, value in (("training.beta", "0.33"), ("training.max_steps", "7"), ("training.batch_size", "0")):
        field(opened, name).fill(value)
        field(opened, name).blur()
    opened.locator("#preset input").click()
    opened.get_by_role("option", name="gpu-8gb", exact=True).click()
    expect(field(opened, "model.name")).to_have_value("Qwen/Qwen2.5-1.5B-Instruct")
    field(opened, "training.beta").fill("0.44")
    field(opened, "training.beta").blur()
    until(lambda: any('"training.beta": 0.44' in kept.read_text(encoding="utf-8") for kept in (studio.runs / drafts.FOLDER).glob("*.json")), 20)
    opened.reload()
    expect(opened.get_by_role("tab", name="Train", exact=True)).to_have_attribute("aria-selected", "true")
    for name, value in (("training.beta", "0.44"), ("model.name", "Qwen/Qwen2.5-1.5B-Instruct")):
        expect(field(opened, name)).to_have_value(value)
    expect(opened.locator("#preset input")).to_have_value("gpu-8gb")
    tab(opened, "Data")
    unfold_data(opened)
    for name, value in (("data.source", str(path)), ("data.edits", "drop 7"), ("data.prompt_column", "prompt"), ("data.rows", "")):
        expect(field(opened, name)).to_have_value(value)
    second = opened.context.new_page()
    second.goto(studio.url)
    expect(field(second, "data.source")).to_have_value(str(path))  # begins with what this browser had last
    source_is(second, "practice")
    expect(second.locator("#source-told")).to_contain_text("Put away with mine.jsonl")
    opened.reload()
    expect(opened.get_by_role("tab", name="Data", exact=True)).to_have_attribute("aria-selected", "true")
    expect(field(opened, "data.source")).to_have_value(str(path))
