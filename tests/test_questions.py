"""Questions that a person keeps: offered first with every run, kept once, forgotten on demand."""

import json

import pytest

from studio import questions, runs
from studio.errors import StudioError
from studio.questions import Question
from studio.ui import talk
from tests.jobs_at_work import practice


def test_questions_are_kept_once_in_the_order_in_which_they_came(tmp_path):
    assert questions.kept(tmp_path) == []
    for text in ("Why?", "Wie geht's,\nÄnne?", "Why?"):
        questions.keep(tmp_path, text)
    assert questions.kept(tmp_path) == [Question("Wie geht's,\nÄnne?"), Question("Why?")]
    assert questions.forget(tmp_path, "Why?") == questions.kept(tmp_path) == [Question("Wie geht's,\nÄnne?")]


def test_questions_that_an_older_version_kept_are_read(tmp_path):
    questions.keep(tmp_path, "Why?")
    questions.path(tmp_path).write_text('["Why?", {"text": "How?", "system": "Be brief."}, {"text": 5}, 7]', encoding="utf-8")
    assert questions.kept(tmp_path) == [Question("Why?"), Question("How?", "Be brief.")]


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
    assert {one.text for one in questions.kept(tmp_path)} == {one.text for one in before}


@pytest.mark.parametrize("spoiled", [b"", b"{", b"\xff", b"5", b'{"a": 1}', b"[" * 100_000])
def test_a_file_that_cannot_be_read_holds_no_question(tmp_path, spoiled):
    questions.keep(tmp_path, "Why?")
    questions.path(tmp_path).write_bytes(spoiled)
    assert questions.kept(tmp_path) == []
    assert questions.keep(tmp_path, "How?") == [Question("How?")]


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    questions.path(tmp_path).parent.touch()
    with pytest.raises(StudioError, match="could not be written .* try again"):
        questions.keep(tmp_path, "Why?")


def test_questions_are_offered_that_were_kept_or_that_the_run_was_asked_before_or_never_saw(tmp_path):
    run = runs.create(tmp_path, practice(**{"evaluation.prompts": "Why?\n\nHow?"}))
    kept = [Question("Older?"), Question("How?")]
    assert talk.questions(None, kept) == talk.questions(run, kept) == [], "nobody can be asked before there is an adapter"
    run.adapter.mkdir()
    assert [one.text for one in talk.questions(run, kept)] == ["How?", "Older?", "Why?"]
    rows = [[{"role": "user", "content": text}] for text in ("How?", "Zoë?", "long" * 100, "Who?")]
    rows.insert(1, [*rows[0], {"role": "assistant", "content": "So."}, {"role": "user", "content": "And?"}])
    rows.append([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where?"}])
    run.held_out.write_text("".join(json.dumps({"prompt": row}) + "\n" for row in rows) + '{"prompt": [', encoding="utf-8")
    found = talk.questions(run, [])
    assert [one.text for one in found] == ["Why?", "How?", "Zoë?", "Who?", "Where?"]
    assert found[-1].system == "Be brief." and talk.questions(run, [], usual="Be brief.")[-1].system is None
    run.held_out.write_text("".join(json.dumps({"prompt": [{"role": "user", "content": f"{at}?"}]}) + "\n" for at in range(99)), encoding="utf-8")
    assert len(talk.questions(run, [Question("Kept?")])) == 1 + talk.QUESTIONS
