"""Data are examined by the real job, some of them as a process: counts that add up, findings, fixes that work, lengths, pairs to look at."""

import json
import shutil
import subprocess
import sys
import time

import pytest

from studio import events, examination, jobs, pace, practice, preview
from studio.engine import data
from studio.engine import examine as examining
from studio.engine.worker import Desk
from studio.errors import DataError, explain
from studio.jobs import Queue
from studio.settings import Settings
from studio.shelf import Shelf
from studio.ui import doctor_card, examined, pair_browser
from studio.ui.studio import Studio
from tests.jobs_at_work import until

TORCH_STAYS_OUT = """
import runpy, sys
try:
    runpy.run_module("studio.engine.{program}", run_name="__main__")
except SystemExit as end:
    assert not end.code, end
assert "transformers" in sys.modules and "torch" not in sys.modules
"""


def settings(path, **more):
    return Settings.from_form(**{"data.source": str(path), **more})


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def row(number, chosen="Because it is so.", rejected="No."):
    return {"prompt": f"Why is number {number} what it is?", "chosen": f"{chosen} {number * 7919}", "rejected": f"{rejected} {number}"}


@pytest.fixture
def root(tmp_path):
    return tmp_path / "runs"


def without_torch(program, *arguments, said):
    """What a program of the engine answers, which imports transformers meanwhile and not torch."""
    done = subprocess.run([sys.executable, "-c", TORCH_STAYS_OUT.format(program=program), *map(str, arguments)], cwd=jobs.PROJECT,
                          input=said, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def examine(root, asked, secrets=None):
    """The finished examination and its shelf, made by the job's function in this process; a failure's words as DataError."""
    job = examination.job_of(root, asked)
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / "request.yaml").write_text(asked.to_yaml(), encoding="utf-8")
    desk = Desk(job.folder, secrets or {})
    try:
        examining.examine(desk)
    except Exception as error:  # as the shell of every job does
        raise DataError(explain(error)) from error
    desk.say(events.Finished())
    return examination.found(job), Shelf(job.folder)


def examine_beside(root, asked, secrets=None):
    """The same by a process."""
    job = examination.begin(root, asked, secrets)
    until(lambda: jobs.status(job) in jobs.OVER)
    if failed := events.last(events.read(job.log), events.Failed):
        raise DataError(failed.reason)
    return examination.found(job), Shelf(job.folder)


def named(found, name):
    return next((finding for finding in found.findings if finding.name == name), None)


@pytest.fixture(scope="module")
def practised(tmp_path_factory):
    """The practice pairs, examined once."""
    return examine_beside(tmp_path_factory.mktemp("runs"), Settings())


def test_the_practice_pairs_can_be_learned_from(practised):
    found, shelf = practised
    assert found.verdict != "not ready" and "rows are usable pairs" in found.account and "“chosen”" in found.recognised
    assert found.pairs == found.shelved == len(shelf) and found.held_out > 0
    assert found.lengths.lost == 0 and sum(found.lengths.parts["prompt"].counts) == found.lengths.measured


def test_an_examined_set_s_size_is_what_a_run_of_it_has(root, tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("prompt,chosen,rejected\n" + "".join(f"Why {at}?,Because {at}.,No {at}.\n" for at in range(100)), encoding="utf-8")
    asked = settings(path, **{"data.held_out": 0.2, "data.rows": 50, "data.weight": 2.0})
    found, _ = examine(root, asked)
    assert pace.size_of(root, asked) == pace.Size(80, found.lengths.tokens, 10) and 20 < found.lengths.tokens < 200
    reading = data.read(asked.data)
    assert len(data.divided(reading, list(range(len(reading.found))), asked.data)[0]) == 80


def test_any_pair_is_found_by_its_row_and_by_its_words(practised):
    _, shelf = practised
    assert shelf[shelf.place_of(7)]["number"] == 7 and shelf.place_of(10**9) is None
    words = shelf[40]["prompt"][-1]["content"].upper()
    first = shelf.search(words)
    assert words.lower() in json.dumps(shelf[first]).lower() and shelf.search("no pair says this") is None
    assert shelf.search(words, after=len(shelf)) == first


def test_what_is_wrong_is_counted_named_and_fixed_by_the_edit_that_is_offered(root, tmp_path):
    rows = [row(at) for at in range(60)] + [row(3), row(4)] + [{"prompt": "x", "chosen": " ", "rejected": "b"}]
    path = write(tmp_path / "pairs.jsonl", rows)
    found, _ = examine(root, settings(path))
    repeats = named(found, "duplicates")
    assert (repeats.count, repeats.rows) == (2, (61, 62)) and found.verdict != "ready"
    assert "62 of 63 rows are usable pairs" in found.account and "(row 63)" in found.account
    mended, shelf = examine(root, settings(path, **{"data.edits": repeats.edit}))
    assert named(mended, "duplicates") is None and mended.pairs == len(shelf) == 60 and shelf.place_of(61) is None
    assert "concerned 2" in mended.edited and path.read_text().count("\n") == 63


def test_held_out_questions_that_are_trained_on_are_found_and_fixed(root, tmp_path):
    rows = [row(at) for at in range(40)] + [row(at, chosen="For another reason altogether:") for at in range(40)]
    path = write(tmp_path / "pairs.jsonl", rows)
    found, _ = examine(root, settings(path, **{"data.held_out": 0.25}))
    assert named(found, "leaks").count > 5
    mended, _ = examine(root, settings(path, **{"data.held_out": 0.25, "data.edits": "drop leaks"}))
    assert named(mended, "leaks") is None and "“drop leaks” concerned" in mended.edited
    assert mended.held_out == found.held_out - named(found, "leaks").count


def test_the_cut_at_the_maximum_length_is_forecast(root, tmp_path):
    long = [row(at, chosen="A long answer. " * 40) for at in range(10)]
    lost = [{"prompt": "word " * 300, "chosen": "a", "rejected": "b"}]
    path = write(tmp_path / "pairs.jsonl", [row(at) for at in range(30)] + long + lost)
    found, _ = examine(root, settings(path, **{"training.max_length": 64}))
    assert found.lengths.measured == 41
    assert found.lengths.chosen_cut == pytest.approx(11 / 41) and found.lengths.lost == pytest.approx(1 / 41)
    assert "lose the end of the better answer" in examined.lengths_card(found.lengths, "", found.pairs)


@pytest.mark.fault("T12")
def test_answers_that_differ_only_behind_the_cut_are_counted_and_a_longer_maximum_is_one_click(root, tmp_path):
    long = "the same words again and again " * 12
    path = write(tmp_path / "pairs.jsonl", [row(at) for at in range(3)] + [row(at, long, long) for at in range(3, 40)])
    found, _ = examine(root, settings(path, **{"training.max_length": 64}))
    same = named(found, "same-after-cut")
    assert same.count == 37 and same.rows[0] == 4 and "37 of 40 pairs" in same.words and "differ only in what the maximum length cuts off" in same.words
    assert same.setting == "training.max_length" and same.button == f"Raise the maximum length to {same.value:,}" and same.value % 64 == 0
    mended, _ = examine(root, settings(path, **{same.setting: same.value}))
    assert named(mended, "same-after-cut") is None and named(mended, "cut") is None and mended.lengths.lost == 0


def test_a_template_that_holds_no_system_turn_is_told_and_its_text_put_before_the_question_by_one_click(root, tmp_path):
    for name, opening in (("refuses", "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"),
                          ("passes-over", "{% if messages[0].role == 'system' %}{% set messages = messages[1:] %}{% endif %}")):
        model = shutil.copytree(practice.MODEL, tmp_path / name)
        template = model / "chat_template.jinja"
        template.write_text(opening + template.read_text(encoding="utf-8"), encoding="utf-8")
        path = write(tmp_path / "pairs.jsonl", [row(at) | {"system": "Be kind." if at % 4 == 0 else None} for at in range(60)])
        found, _ = examine(root, settings(path, **{"model.name": str(model)}))
        told = named(found, "system-turns")
        assert (told.count, told.weight, told.rows[:2]) == (15, "bad", (1, 5)) and found.lengths, name
    mended, shelf = examine(root, settings(path, **{"model.name": str(model), "data.edits": told.edit}))
    assert named(mended, "system-turns") is None and shelf[0]["prompt"][0]["content"].startswith("Be kind.\n\nWhy")


@pytest.mark.fault("T8")
def test_rows_that_are_no_pair_stop_a_run_until_one_click_leaves_them_out(root, tmp_path):
    path = write(tmp_path / "pairs.jsonl", [row(at) for at in range(60)] + [{"prompt": "q", "chosen": 3, "rejected": ""}, {"prompt": "q"}])
    found, _ = examine(root, settings(path))
    told = named(found, "unusable")
    assert found.verdict == "not ready" and told.count == 2 and (told.setting, told.value) == ("data.leave_out", True)
    with pytest.raises(DataError, match="some are no pairs"):
        data.read(settings(path).data)
    mended, _ = examine(root, settings(path, **{told.setting: told.value}))
    assert mended.verdict != "not ready" and named(mended, "unusable") is None
    assert len(data.read(settings(path, **{told.setting: told.value}).data).found) == 60


def test_columns_by_which_rows_can_be_chosen_are_offered_with_their_counts(root, tmp_path):
    path = write(tmp_path / "pairs.jsonl", [row(at) | {"source": "web" if at % 3 else "books", "id": at} for at in range(60)])
    found, _ = examine(root, settings(path))
    assert doctor_card.values_of(found.columns) == (("source = web (40 rows)", "source = web"), ("source = books (20 rows)", "source = books"))
    kept, _ = examine(root, settings(path, **{"data.edits": "keep source = books"}))
    assert kept.pairs == 20 and "40 were taken out by edits" in kept.account


def test_without_the_model_s_tokenizer_the_rest_is_examined_and_the_reason_told(root, tmp_path, hub):
    path = write(tmp_path / "pairs.jsonl", [row(at) for at in range(10)])
    found, _ = examine(root, settings(path, **{"model.name": "nobody/nothing"}))
    assert found.lengths is None and "nobody/nothing" in found.without_lengths and found.pairs == 10


@pytest.mark.parametrize(("name", "text", "told"), [
    ("empty.jsonl", "", "empty"), ("page.jsonl", "<html></html>", "page.jsonl"), ("wrong.csv", "a,b\n1,2\n", "a, b"),
    ("header.csv", "prompt,chosen,rejected\n", "no rows"),
])
def test_a_file_that_gives_no_pairs_is_told_in_a_sentence(root, tmp_path, name, text, told):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=told):
        examine(root, settings(tmp_path / name))


@pytest.mark.slow
def test_the_same_question_is_answered_from_what_is_there(root, tmp_path):
    path = write(tmp_path / "pairs.jsonl", [row(at) for at in range(10)])
    examine(root, settings(path))
    began = time.monotonic()
    examine(root, settings(path))
    assert time.monotonic() - began < 0.5
    write(path, [row(at) for at in range(20)])
    assert examine(root, settings(path))[0].pairs == 20


def test_an_examination_ends_when_it_is_asked_to(root, tmp_path):
    path = write(tmp_path / "pairs.jsonl", (row(at) for at in range(200_000)))
    job = examination.begin(root, settings(path))
    until(lambda: events.last(events.read(job.log), events.Progressed))
    jobs.stop(job)
    until(lambda: jobs.status(job) in jobs.OVER, seconds=20)
    assert jobs.status(job) == "stopped" and examination.found(job) is None


def test_a_private_dataset_is_read_with_the_token_at_its_commit(root, hub, tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    shutil.copy(practice.PAIRS, folder / "train.jsonl")
    token = hub.add_user("ada")
    commit = hub.add_dataset("ada/pairs", folder, private=True).commits[-1].oid
    with pytest.raises(DataError, match="ada/pairs was not found"):
        examine_beside(root, settings("ada/pairs"))
    found, _ = examine_beside(root, settings("ada/pairs"), {"token": token})
    assert f"ada/pairs is read at commit {commit}." in found.recognised and found.pairs > 1000


# --- as the model reads it, and on the page ---------------------------------------------------------------------------


def test_a_pair_is_shown_token_by_token_as_the_model_reads_it(practised):
    _, shelf = practised
    *waited, seen = preview.look(Settings(), shelf[0])
    assert waited and not any(waited) and not preview.at_work[""]
    assert "".join(seen.chosen[: seen.prompt]) == "".join(seen.rejected[: seen.prompt])
    assert shelf[0]["chosen"][-1]["content"] in "".join(seen.chosen[seen.prompt :])
    html = examined.as_read(seen)
    assert 'class="token shared"' in html and 'class="token scored"' in html and seen.seal in html


@pytest.mark.parametrize("source", ["practice", "ada/kind-answers"])
def test_an_examination_counts_tokens_without_torch(hub, tmp_path, source):
    folder, job = tmp_path / "rows", tmp_path / "job"
    folder.mkdir()
    job.mkdir()
    shutil.copy(practice.PAIRS, folder / "train.jsonl")
    hub.add_dataset("ada/kind-answers", folder)
    (job / "request.yaml").write_text(settings(source).to_yaml(), encoding="utf-8")
    without_torch("examine", job, said="{}")
    assert examination.found(jobs.Job("examine", job)).lengths


def test_the_tokens_of_a_pair_are_made_without_torch(practised):
    _, shelf = practised
    pair = {name: shelf[0][name] for name in ("prompt", "chosen", "rejected")}
    answer = without_torch("look", said=json.dumps({"settings": Settings().model_dump(), "pair": pair}))
    assert json.loads(answer)["chosen"]


def test_what_differs_between_the_answers_is_marked_and_everything_is_text():
    better, worse = examined.marked("It is <b>blue</b> today.", "It is red today.")
    assert better == "It is <mark>&lt;b&gt;blue&lt;/b&gt; </mark>today." and worse == "It is <mark>red </mark>today."


@pytest.mark.fault("T67")
def test_what_a_dataset_holds_is_shown_as_text_and_never_as_markup(root, tmp_path):
    evil = "<script>alert(1)</script>"
    rows = [{"prompt": f"{evil} {at}", "chosen": f"{evil} yes", "rejected": f"{evil} no {at}"} for at in range(6)]
    path = write(tmp_path / "x.jsonl", [*rows, rows[0]])
    values = {"data.source": str(path)}
    examine(root, settings(path))
    view = doctor_card.view(Studio(root, Queue(root)), values)
    _, shown = pair_browser.looked_up(view.folder, 1)
    assert "&lt;script&gt;" in view.html and "<script>" not in view.html + shown and "&lt;script&gt;" in shown


@pytest.mark.parametrize("text", [
    "שלום עולם", "\u202edesrever\u202c", *(pytest.param(text, marks=pytest.mark.slow) for text in ("مرحبا", "👩‍👩‍👧‍👦 🏳️‍🌈", "e\u0301a\u0308", "漢字かな"))],
    ids=["hebrew", "bidi override", "arabic", "joined emoji", "combining", "cjk"])
@pytest.mark.fault("T13b")
def test_whatever_a_text_is_written_in_it_is_kept_shown_and_found(root, tmp_path, text):
    path = write(tmp_path / "x.jsonl", [{"prompt": f"{text} {at}", "chosen": f"{text} yes", "rejected": f"{text} no {at}"} for at in range(3)])
    _, shelf = examine(root, settings(path))
    assert shelf[1]["prompt"][0]["content"] == f"{text} 1" and shelf.search(f"{text[-20:]} no 2") == 2
    assert f'<p dir="auto">{text} 1</p>' in examined.numbered_pair(shelf[1])


def test_of_a_million_characters_the_page_shows_the_beginning_and_says_how_many_there_are(root, tmp_path):
    path = write(tmp_path / "x.jsonl", [row(at) for at in range(3)] + [row(3, chosen="x" * 1_000_000)])
    _, shelf = examine(root, settings(path))
    html = examined.numbered_pair(shelf[3])
    assert len(html) < 100_000 and "more characters" in html and len(shelf[3]["chosen"][0]["content"]) > 1_000_000


def test_a_setting_out_of_range_is_told_instead_of_examining(root):
    assert "at most 0.5" in doctor_card.view(Studio(root, Queue(root)), {"data.held_out": 0.9}).html


def test_edits_are_added_at_the_end_and_undone_from_there():
    edits = doctor_card.with_edit(doctor_card.with_edit("", "drop 3"), "swap all")
    assert edits == "drop 3; swap all" and doctor_card.without_last(edits) == "drop 3" and doctor_card.without_last("drop 3") == ""
