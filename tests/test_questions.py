"""Questions that a person keeps: offered first with every run, kept once, forgotten on demand."""

import json

import pytest

from studio import questions, runs
from studio.errors import StudioError
from studio.ui import talk
from tests.jobs_at_work import practice


def test_questions_are_kept_once_in_the_order_in_which_they_came(tmp_path):
    assert questions.kept(tmp_path) == []
    for text in ("Why?", "Wie geht's,\nÄnne?", " Why? "):
        questions.keep(tmp_path, text)
    assert questions.kept(tmp_path) == ["Wie geht's,\nÄnne?", "Why?"]
    assert questions.forget(tmp_path, "Why?") == questions.kept(tmp_path) == ["Wie geht's,\nÄnne?"]


def test_what_cannot_be_kept_is_told_and_changes_nothing(tmp_path):
    for place in range(questions.MOST):
        questions.keep(tmp_path, f"Question {place}?")
    before = questions.kept(tmp_path)
    for text, told in (("", "no question to keep"), (None, "no question"), ("x" * 2001, "2,001 characters, and 2,000 is the most"), ("One more?", "Forget one first")):
        with pytest.raises(StudioError, match=told):
            questions.keep(tmp_path, text)
    with pytest.raises(StudioError, match="is not kept. Choose one of yours"):
        questions.forget(tmp_path, "Never asked?")
    questions.keep(tmp_path, "Question 0?")
    assert sorted(questions.kept(tmp_path)) == sorted(before)


@pytest.mark.parametrize("spoiled", [b"", b"{", b"\xff", b"5", b'{"a": 1}', b"[" * 100_000])
def test_a_file_that_cannot_be_read_holds_no_question(tmp_path, spoiled):
    questions.keep(tmp_path, "Why?")
    questions.path(tmp_path).write_bytes(spoiled)
    assert [text for text in questions.kept(tmp_path) if text != "a"] == []
    assert questions.keep(tmp_path, "How?")[-1] == "How?"


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    questions.path(tmp_path).parent.touch()
    with pytest.raises(StudioError, match="could not be written .* try again"):
        questions.keep(tmp_path, "Why?")


def test_kept_questions_are_offered_first_then_the_run_s_prompts_then_what_it_never_saw(tmp_path):
    run = runs.create(tmp_path, practice(**{"evaluation.prompts": "A prompt?\nWhy?"}))
    assert talk.questions(run, ["Kept?"]) == [] == talk.questions(None, ["Kept?"]), "There is nobody to ask."
    run.adapter.mkdir()
    rows = [[{"role": "user", "content": text}] for text in ("Held out?", "A prompt?", "x" * 301, "")]
    run.held_out.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in [*rows, rows[0] * 3]) + "torn", encoding="utf-8")
    assert talk.questions(run, ["Older?", "Why?"]) == ["Why?", "Older?", "A prompt?", "Held out?"]
