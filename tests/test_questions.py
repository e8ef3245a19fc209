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


def test_questions_are_offered_that_were_kept_or_that_the_run_was_asked_before_or_never_saw(tmp_path):
    run = runs.create(tmp_path, practice(**{"evaluation.prompts": "Why?\n\n How? "}))
    assert talk.questions(None, ["Kept?"]) == talk.questions(run, ["Kept?"]) == [], "nobody can be asked before there is an adapter"
    run.adapter.mkdir()
    assert talk.questions(run, ["Older?", "How?"]) == ["How?", "Older?", "Why?"]
    rows = [[{"role": "user", "content": text}] for text in ("How?", "Zoë?", "long" * 100, "Who?")]
    rows.insert(1, [*rows[0], {"role": "assistant", "content": "So."}, {"role": "user", "content": "And?"}])
    run.held_out.write_text("".join(json.dumps({"prompt": row}) + "\n" for row in rows) + '{"prompt": [', encoding="utf-8")
    assert talk.questions(run, []) == ["Why?", "How?", "Zoë?", "Who?"]
    run.held_out.write_text("".join(json.dumps({"prompt": [{"role": "user", "content": f"{at}?"}]}) + "\n" for at in range(99)), encoding="utf-8")
    assert len(talk.questions(run, ["Kept?"])) == 1 + talk.QUESTIONS
