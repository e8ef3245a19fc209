"""The Data tab, clicked: examined, mended, looked at, rewritten, read in its encoding, searched for, taken elsewhere."""

import gzip
import json
import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect

from studio import practice
from studio.preferences.edits import parse
from tests.browser.steps import LONG_MS, examine, is_accessible, load, running, source_is, tab
from tests.jobs_at_work import until


def row(number, **more):
    return {"prompt": f"Why {number}?", "chosen": f"Because of {number * 31}.", "rejected": f"No, {number}."} | more


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def upload(page, path):
    with page.expect_file_chooser() as chosen:
        page.locator("#upload-pairs").click()
    chosen.value.set_files(path)
    expect(page.locator("#field-data-source").locator("input, textarea")).to_have_value(re.compile(f"{path.name}$"))


def edits(page):
    page.get_by_role("button", name=re.compile("Further sources")).click()
    return page.locator("#field-data-edits").locator("input, textarea").input_value()


def test_the_practice_pairs_are_examined_and_any_of_them_is_shown_token_by_token(opened):
    examine(opened)
    expect(opened.locator("#examination .verdict")).to_contain_text("ready")
    expect(opened.locator("#examination")).to_contain_text("rows are usable pairs")
    expect(opened.locator("#lengths .histogram").first).to_be_visible()
    opened.locator("#pair-row input").fill("17")
    opened.locator("#pair-row input").press("Enter")
    expect(opened.locator("#pair")).to_contain_text("Row 17")
    opened.locator("#as-read").click()
    expect(opened.locator("#pair-tokens .token.scored").first).to_be_visible(timeout=30_000)


def test_a_pair_s_tokens_that_do_not_come_are_cancelled_and_keep_no_other_page_waiting(opened, studio):
    examine(opened)
    opened.locator("#as-read").click()
    held, = until(lambda: running(studio, "studio.engine.look"))
    held.suspend()
    expect(opened.locator("#pair-tokens")).to_contain_text("Making the tokens")
    other = opened.context.new_page()
    load(other, studio)
    examine(other)
    other.locator("#as-read").click()
    expect(other.locator("#pair-tokens .token.scored").first).to_be_visible()
    other.close()
    opened.locator("#cancel-tokens").click()
    expect(opened.locator("#pair-tokens")).not_to_contain_text("Making the tokens")
    expect(opened.locator("#cancel-tokens")).to_be_hidden()
    until(lambda: not held.is_running(), 5)
    opened.locator("#as-read").click()
    expect(opened.locator("#pair-tokens .token.scored").first).to_be_visible()
    expect(opened.locator("#cancel-tokens")).to_be_hidden()


def test_what_is_wrong_under_train_keeps_no_pairs_from_being_examined(opened):
    tab(opened, "Train")
    rate = opened.locator("#field-training-learning_rate input")
    rate.fill("77")
    opened.locator("#start").click()
    expect(opened.locator("#complaints")).to_contain_text("Learning rate")
    tab(opened, "Data")
    examine(opened)
    expect(opened.locator("#examination .verdict")).to_contain_text("ready")
    tab(opened, "Train")
    expect(opened.locator("#complaints")).to_contain_text("Learning rate")
    tab(opened, "Data")
    length = opened.locator("#field-data-rows input")
    length.fill("0")
    opened.locator("#examine").click()
    expect(opened.locator("#complaints")).to_contain_text("Fix 2 fields")


def test_a_bad_file_is_made_ready_by_clicks_and_stays_as_it_is(opened, tmp_path):
    rows = [row(at) for at in range(60)] + [row(3), row(61, chosen=" "), {"prompt": "no answers"}]
    path = write(tmp_path / "bad.jsonl", rows)
    source_is(opened, path)
    examine(opened)
    verdict = opened.locator("#examination .verdict")
    expect(verdict).to_contain_text("not ready")
    expect(opened.locator("#examination")).to_contain_text("(rows 62, 63)")
    opened.get_by_role("button", name="Leave out 2 unusable rows").click()
    expect(verdict).to_contain_text("ready with losses", timeout=60_000)
    opened.get_by_role("button", name=re.compile("^Drop 1 repeat")).click()
    expect(opened.locator("#examination")).to_contain_text("“drop duplicates” concerned 1", timeout=60_000)
    assert path.read_text(encoding="utf-8").count("\n") == 62
    opened.locator("#undo-edit").click()
    expect(opened.locator("#examination")).not_to_contain_text("concerned", timeout=60_000)
    opened.locator("#undo-edit").click()
    expect(verdict).to_contain_text("not ready", timeout=60_000)


def test_an_answer_that_comes_late_does_not_end_the_looking(opened, tmp_path):
    """A fix changes a field and examines anew: what is worked out for the field in between may arrive when the work has begun."""
    source_is(opened, write(tmp_path / "late.jsonl", [row(at) for at in range(60)] + [{"prompt": "no answers"}]))
    examine(opened)
    button = opened.evaluate("window.gradio_config.components.find(one => one.props.elem_id == 'fix-0').id")
    late, fixes, holding = [], [], True

    def hold(route):
        asked = route.request
        if asked.url.endswith("/run/predict"):
            answer = route.fetch()
            if holding and "not been examined yet" in answer.text():
                late.append((route, answer))
            else:
                route.fulfill(response=answer)
        elif holding and asked.post_data_json["trigger_id"] == button:
            fixes.append(route)
            if len(fixes) == 1:  # the change goes on, the examination after it waits
                route.continue_()
        else:
            route.continue_()

    opened.route(re.compile("/(queue/join|run/predict)"), hold)
    opened.get_by_role("button", name="Leave out 1 unusable row").click()
    until(lambda: opened.wait_for_timeout(500) or late, 20)
    holding = False
    fixes[1].continue_()
    expect(opened.locator("#cancel-examination")).to_be_visible()
    for route, answer in late:
        route.fulfill(response=answer)
    expect(opened.locator("#examination .verdict")).to_contain_text("ready with losses", timeout=60_000)


def test_a_column_s_value_that_was_chosen_stays_while_the_form_changes(opened, tmp_path):
    source_is(opened, write(tmp_path / "columns.jsonl", [row(at, source=("books", "web", "letters")[at % 3]) for at in range(30)]))
    examine(opened)
    opened.locator("#by-column").get_by_role("button", name="Choose rows by a column").click()
    opened.locator("#column-value input").click()
    opened.get_by_role("option", name=re.compile("source = books")).click()
    rows = opened.locator("#field-data-rows").locator("input")
    rows.fill("20")
    rows.press("Tab")
    expect(opened.locator("#by-column")).to_be_hidden()
    examine(opened)
    expect(opened.locator("#column-value input")).to_have_value(re.compile("source = books"))
    opened.locator("#drop-rows").click()
    expect(opened.locator("#examination")).to_contain_text("were taken out by edits", timeout=60_000)
    expect(opened.locator("#column-value input")).to_have_value("")


@pytest.mark.slow
def test_rows_are_held_out_and_dropped_by_a_column_s_value(opened, tmp_path):
    rows = [row(at, split="test" if at % 4 == 0 else "train", source="web" if at % 3 else "books") for at in range(60)]
    source_is(opened, write(tmp_path / "columns.jsonl", rows))
    examine(opened)
    opened.locator("#by-column").get_by_role("button", name="Choose rows by a column").click()
    for value, button, told in (("split = test (15 rows)", "#hold-out-rows", "15 of the pairs will be held out"),
                                ("source = books", "#drop-rows", "20 were taken out by edits")):
        opened.locator("#column-value input").click()
        opened.get_by_role("option", name=re.compile(re.escape(value))).click()
        opened.locator(button).click()
        expect(opened.locator("#examination")).to_contain_text(told, timeout=60_000)


@pytest.mark.slow
def test_a_pair_is_rewritten_swapped_and_dropped_where_it_is_seen(opened, tmp_path):
    source_is(opened, write(tmp_path / "pairs.jsonl", [row(at) for at in range(60)]))
    examine(opened)
    expect(opened.locator("#pair")).to_contain_text("Row 1")
    opened.locator("#pair-after").click()
    expect(opened.locator("#pair")).to_contain_text("Row 2")
    opened.locator("#rewrite").get_by_role("button", name="Change its words").click()
    better = opened.locator("#rewrite-chosen textarea")
    expect(better).to_have_value("Because of 31.")
    better.fill('Because; "it" is so.')
    opened.locator("#save-rewrite").click()
    expect(opened.locator("#pair")).to_contain_text('Because; "it" is so.', timeout=60_000)
    opened.locator("#swap-pair").click()
    expect(opened.locator("#pair .chosen")).to_contain_text("No, 1.", timeout=60_000)
    opened.locator("#drop-pair").click()
    expect(opened.locator("#pair")).not_to_contain_text("Row 2", timeout=60_000)
    assert [edit.verb for edit in parse(edits(opened))] == ["rewrite", "swap", "drop"]


def test_a_text_in_another_encoding_is_read_at_once_and_this_is_said(opened, tmp_path):
    lines = "".join(f"Wie heißt Nummer {at}, und was ist das?;Sie heißt schön {at}.;Weiß nicht {at}.\n" for at in range(40))
    path = tmp_path / "latin.csv"
    path.write_bytes(("prompt;chosen;rejected\n" + lines).encode("cp1252"))
    upload(opened, path)
    opened.locator("#examine").click()
    expect(opened.locator("#pair")).to_contain_text("Wie heißt Nummer 0", timeout=60_000)
    expect(opened.locator("#examination")).to_contain_text("latin.csv is in Windows-1252, Western European (cp1252)")


def test_an_encoding_that_is_not_certain_is_chosen_by_a_sample_and_a_sheet_by_its_name(opened, tmp_path):
    path = tmp_path / "short.csv"
    path.write_bytes("prompt,chosen,rejected\nWhy?,מדוע,no\nHow?,איך,yes\n".encode("cp1255"))
    upload(opened, path)
    opened.locator("#examine").click()
    expect(opened.locator("#examination")).to_contain_text("which encoding it is in is not certain", timeout=60_000)
    opened.get_by_role("button", name=re.compile("Read it as Windows-1255: “Why.,מדוע,no")).click()
    expect(opened.locator("#pair")).to_contain_text("מדוע", timeout=60_000)
    upload(opened, Path(__file__).parent.parent / "cases" / "readme_sheet_first.xlsx")
    opened.locator("#examine").click()
    expect(opened.locator("#examination")).to_contain_text("“Pairs” is read, not “Read me”", timeout=60_000)


def test_an_upload_that_is_of_no_use_is_told_and_the_good_ones_stay(opened, tmp_path, studio):
    good = write(tmp_path / "good.jsonl", [row(at) for at in range(5)])
    bomb = tmp_path / "bomb.csv"
    bomb.write_bytes(gzip.compress(b"a,b\n" * 10_000_000))
    for path in (good, bomb):
        upload(opened, path)
    opened.locator("#examine").click()
    expect(opened.locator("#examination")).to_contain_text("is compressed (gzip)", timeout=60_000)
    expect(opened.locator("#examination")).to_contain_text("The upload was removed.")
    expect(opened.locator("#used-before")).to_be_visible(timeout=60_000)
    opened.locator("#used-before input").click()
    opened.get_by_role("option", name=re.compile("good.jsonl")).click()
    examine(opened)
    expect(opened.locator("#examination")).to_contain_text("All 5 rows are usable pairs")
    assert not list(studio.runs.rglob("bomb.csv"))


def test_a_dataset_is_found_while_its_name_is_typed(opened, hub, tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    shutil.copy(practice.PAIRS, folder / "train.jsonl")
    hub.add_dataset("ada/kind-answers", folder)
    hub.add_dataset("ada/kind-secrets", folder, private=True)
    field = opened.locator("#field-data-source").locator("input, textarea")
    field.fill("")
    field.press_sequentially("kind-a", delay=60)
    found = opened.locator("#hub-datasets label")
    expect(found).to_have_count(1)
    found.click()
    expect(field).to_have_value("ada/kind-answers")
    expect(opened.locator("#hub-datasets")).to_be_hidden()
    examine(opened)
    expect(opened.locator("#examination")).to_contain_text("ada/kind-answers is read at commit")


def test_the_cleaned_pairs_are_downloaded_and_pushed(opened, hub, tmp_path):
    source_is(opened, write(tmp_path / "pairs.jsonl", [row(at) for at in range(40)] + [row(3)]))
    examine(opened)
    opened.get_by_role("button", name=re.compile("^Drop 1 repeat")).click()
    expect(opened.locator("#examination")).to_contain_text("concerned 1", timeout=60_000)
    opened.locator("#export").get_by_role("button", name="Take the cleaned pairs elsewhere").click()
    opened.locator("#export-jsonl").click()
    expect(opened.locator("#export-state")).to_contain_text("40 pairs", timeout=60_000)
    with opened.expect_download() as download:
        opened.locator("#download-pairs").click()
    rows = [json.loads(line) for line in download.value.path().read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 40 and rows[0]["prompt"] == [{"role": "user", "content": "Why 0?"}]
    token = hub.add_user("grace")
    opened.get_by_role("button", name=re.compile("Further sources")).click()
    opened.locator("#data-token input").fill(token)
    opened.locator("#export-repo").locator("input, textarea").fill("kind-pairs")
    opened.locator("#export-hub").click()
    expect(opened.locator("#export-state")).to_contain_text("Pushed to grace/kind-pairs", timeout=LONG_MS)
    assert hub.repos["datasets/grace/kind-pairs"].private and token not in opened.content()


def test_an_examined_set_has_no_accessibility_violation(page, studio, tmp_path):
    load(page, studio, "/?__theme=dark")
    rows = [row(at, source="web" if at % 3 else "books") for at in range(60)] + [row(3), row(70, chosen="")]
    source_is(page, write(tmp_path / "mixed.jsonl", rows))
    examine(page)
    expect(page.locator("#pair")).to_contain_text("Row 1")
    for name in ("Choose rows by a column", "Change its words", "Take the cleaned pairs elsewhere", re.compile("Further sources")):
        page.get_by_role("button", name=name).click()
    page.locator("#as-read").click()
    expect(page.locator("#pair-tokens .token.scored").first).to_be_visible(timeout=60_000)
    is_accessible(page)
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
