"""The form on the page: whose choices it shows, what a preset leaves alone, what stays said, what a reload finds again."""

import json
import re

from playwright.sync_api import expect

from studio import fingerprints
from studio.preferences.mix import Part
from studio.settings import Settings
from tests.browser.steps import examine, source_is, tab


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
