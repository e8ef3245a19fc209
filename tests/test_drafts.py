"""What stands in an open page's form is kept for its reload: whole, for that page, without secrets, also from another version."""

import json

import pytest

from studio import drafts
from studio.access import Visitor
from studio.jobs import Queue
from studio.settings import Settings
from studio.ui import draft
from studio.ui.studio import Studio

ONE, TWO = "1" * 32, "2" * 32
TOKEN = "hf_" + "aB3" * 12


def form(**more):
    return Settings().to_form() | {name.replace("__", "."): value for name, value in more.items()}


def test_a_draft_is_found_again_for_its_page_and_a_new_page_begins_with_the_last_one(tmp_path):
    history = [{"data.edits": "", "data.edits_for": ""}]
    drafts.keep(tmp_path, ONE, form(training__beta=0.7, data__edits="drop 3", data__rows=None, training__batch_size=0), history, "gpu-8gb")
    drafts.keep(tmp_path, TWO, form(training__beta=0.9), [], "")
    found = drafts.found(tmp_path, ONE, TWO)
    assert (found.values["training.beta"], found.values["data.edits"], found.values["training.batch_size"]) == (0.7, "drop 3", 0)
    assert (found.history, found.preset, found.dropped) == (history, "gpu-8gb", ())
    assert drafts.found(tmp_path, "3" * 32, TWO).values["training.beta"] == 0.9
    assert drafts.found(tmp_path, "3" * 32, "") is None


def test_a_draft_of_another_version_opens_with_what_is_still_valid_and_names_the_rest(tmp_path):
    (tmp_path / drafts.FOLDER).mkdir()
    old = {"training.beta": 0.7, "training.optimiser": "sgd", "model.quantization": "nf5", "training.epochs": "many", "data.split": 3,
           "adapter.rank": True, "training.gradient_checkpointing": "full"}
    history = [{"data.edits": "drop 1", "data.gone": 2}, {"data.gone": 1}]
    (tmp_path / drafts.FOLDER / f"{ONE}.json").write_text(json.dumps({"values": old, "history": history, "preset": "gone"}), encoding="utf-8")
    found = drafts.found(tmp_path, ONE)
    assert found.values == {"training.beta": 0.7, "training.gradient_checkpointing": "full"}
    assert found.history == [{"data.edits": "drop 1"}]
    assert found.dropped == ("training.optimiser (sgd)", "Quantization (nf5)", "Epochs (many)", "Split (3)", "Rank (True)")
    begun, told = draft.restored(Studio(tmp_path, Queue(tmp_path)), [ONE])
    assert begun.values["training.beta"] == 0.7 and begun.values["model.quantization"] == "none" and begun.preset == "practice"
    assert "training.optimiser (sgd); Quantization (nf5)" in told


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null", '{"values": 3}', '{"values": {}, "history": 7}', "[" * 9000, '{"values": {"a": 1}}'])
def test_a_damaged_draft_is_passed_over(tmp_path, text):
    (tmp_path / drafts.FOLDER).mkdir()
    (tmp_path / drafts.FOLDER / f"{ONE}.json").write_text(text, encoding="utf-8")
    assert drafts.found(tmp_path, ONE) is None
    assert draft.restored(Studio(tmp_path, Queue(tmp_path)), [ONE])[0].values["model.name"] == "practice"


@pytest.mark.parametrize("page", [None, 7, "", "../x", "1" * 31, "1" * 33, "G" * 32, "/etc/passwd", f"../{ONE}"])
def test_what_is_no_page_keeps_nothing_and_finds_nothing(tmp_path, page):
    drafts.keep(tmp_path, page, form(), [], "")
    assert not list(tmp_path.iterdir()) and drafts.found(tmp_path, page) is None


def test_no_token_is_ever_in_a_draft_and_its_field_is_named(tmp_path):
    drafts.keep(tmp_path, ONE, form(training__push_checkpoints_to=TOKEN, data__edits=f'rewrite 1 {{"chosen": "{TOKEN}"}}'),
                [{"data.edits": TOKEN}, {"data.edits": "drop 1"}], "")
    assert TOKEN not in (tmp_path / drafts.FOLDER / f"{ONE}.json").read_text(encoding="utf-8")
    found = drafts.found(tmp_path, ONE)
    assert found.dropped == ("Edits (it looks like a secret)", "Checkpoints to the Hub (it looks like a secret)")
    assert found.history == [{"data.edits": "drop 1"}]


def test_drafts_do_not_pile_up(tmp_path):
    for number in range(drafts.KEPT + 5):
        drafts.keep(tmp_path, f"{number:032x}", form(training__beta=number + 1), [], "")
    assert len(list((tmp_path / drafts.FOLDER).iterdir())) == drafts.KEPT


def test_a_file_that_has_gone_takes_what_was_chosen_for_it_along(tmp_path):
    drafts.keep(tmp_path, ONE, form(data__source=str(tmp_path / "gone.csv"), data__edits="swap 3", training__beta=0.7), [], "")
    begun, told = draft.restored(Studio(tmp_path, Queue(tmp_path)), [ONE])
    assert (begun.values["data.source"], begun.values["data.edits"], begun.values["training.beta"]) == ("practice", "", 0.7)
    assert "gone.csv, which is not there any more" in told


def test_a_user_s_draft_names_no_file_that_is_not_theirs(tmp_path):
    secret = tmp_path / "secret.csv"
    secret.write_text("a,b", encoding="utf-8")
    studio = Studio(tmp_path, Queue(tmp_path), who=lambda: Visitor("anna"))
    drafts.keep(studio.root, ONE, form(data__source=str(secret)), [], "")
    begun, told = draft.restored(studio, [ONE])
    assert begun.values["data.source"] == "practice" and "secret.csv, which is not open to you" in told
