"""Texts that go through a text field and come back: what was not changed there is as it was, to the byte."""

import json
from pathlib import Path

import pytest

from studio import about, runs
from studio.begun import Begun
from studio.engine import learning, material
from studio.engine.vocabulary import load_tokenizer
from studio.engine.worker import Desk
from studio.preferences import edits
from studio.preferences.findings import Seen, share
from studio.preferences.pairs import Pair, common_system
from studio.shelf import Shelving
from studio.ui import pair_browser
from tests.jobs_at_work import practice

WINDOWS = "  def f():\r\n\treturn 1\r\n\r\n"
MIXED = "one\r\ntwo\nthree\rfour\r\n"


def in_a_browser(text: str) -> str:
    """What a textarea makes of a text that is put into it."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


@pytest.mark.parametrize(("was", "typed", "kept"), [
    (WINDOWS, in_a_browser(WINDOWS), WINDOWS), (MIXED, in_a_browser(MIXED), MIXED),
    (WINDOWS, in_a_browser(WINDOWS).replace("1", "2"), WINDOWS.replace("1", "2")),
    (MIXED, "zero\none\ntwo\n3\nfour\n", "zero\r\none\r\ntwo\n3\r\nfour\r\n"), ("a\nb", "a\nc", "a\nc"), ("a\rb", "", "")])
def test_line_ends_survive_the_text_field(was, typed, kept):
    assert pair_browser.with_line_ends_of(was, typed) == kept


def test_a_pair_that_is_rewritten_changes_only_where_somebody_wrote(tmp_path):
    shelving = Shelving(tmp_path)
    before = Pair([{"role": "user", "content": WINDOWS}], [{"role": "assistant", "content": MIXED}], [{"role": "assistant", "content": "\tno\n\n"}])
    shelving.add(3, before.row())
    shelving.close()
    shown = [in_a_browser(text) for text in pair_browser.texts_of(Path(tmp_path), 0)]
    assert pair_browser.rewriting(tmp_path, 0, tuple(shown)) == ""
    edit, = edits.parse(pair_browser.rewriting(tmp_path, 0, (shown[0], shown[1], "\tyes; \u2028{no}\n\n")))
    assert edit.changed(before) == Pair(before.prompt, before.chosen, [{"role": "assistant", "content": "\tyes; \u2028{no}\n\n"}])
    assert edit.concerns()(Seen(3, before))


def test_notes_stay_as_they_were_written(tmp_path):
    run = runs.create(tmp_path, practice())
    about.write(run, " A  title ", "\tindented\n\n")
    assert about.of(run) == about.About("A title", "\tindented\n\n")


def test_a_system_prompt_is_common_only_where_all_pairs_have_it():
    def prompt(*texts):
        return [{"role": role, "content": text} for role, text in zip(("system", "user"), texts, strict=True)]

    alike, other = prompt(" Be brief.\n", "Why?"), prompt("Be long.", "Why?")
    assert common_system([alike, alike]) == " Be brief.\n"
    assert common_system([alike, other]) == common_system([alike, alike[1:]]) == common_system([]) == ""
    assert json.loads(json.dumps(alike)) == alike


@pytest.mark.parametrize(("count", "told"), [(978, "over 99 %"), (979, "100 %"), (970, "99 %"), (12, "1 %"), (9, "under 1 %"), (0, "0 %")])
def test_only_all_of_the_pairs_are_a_hundred_percent(count, told):
    assert share(count, 979) == f"{count} of 979 pairs ({told})"


def test_the_system_prompt_of_all_pairs_is_known_before_the_first_step_and_the_prompts_to_sample_are_asked_after_it(tmp_path):
    system, path = "  Answer in one word.\n", tmp_path / "pairs.jsonl"
    rows = [{"system": system, "prompt": f"Question {at}?", "chosen": f"A good answer to {at}.", "rejected": f"No {at}."} for at in range(12)]
    settings = practice(**{"data.source": str(path), "evaluation.prompts": "  Who are you?"})
    tokenizer = load_tokenizer(settings.model)
    for others, common in ((rows, system), ([*rows[:-1], rows[-1] | {"system": "Be long."}], "")):
        path.write_text("".join(json.dumps(row) + "\n" for row in others), encoding="utf-8")
        gathered = material.gather(settings, tokenizer, Desk(tmp_path), Begun())
        assert gathered.system == common
        opening = [{"role": "system", "content": common}] if common else []
        assert learning._prompts(settings, gathered) == [[*opening, {"role": "user", "content": "  Who are you?"}]]
