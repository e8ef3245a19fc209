"""Pairs as token ids: each text once, the file taken again, and nothing that cannot be learned from let through."""

import json
import os
import shutil

import numpy as np
import pytest

from studio.engine import tokens
from studio.engine.vocabulary import load_tokenizer
from studio.errors import DataError
from studio.practice import MODEL, PAIRS
from studio.preferences.pairs import Pair
from studio.settings import ModelSettings


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(ModelSettings())


@pytest.fixture(scope="module")
def found():
    with open(PAIRS, encoding="utf-8") as lines:
        return [Pair(**json.loads(line)) for line in lines][:200]


def pair(question, better, worse):
    return Pair(*([{"role": role, "content": text}] for role, text in (("user", question), ("assistant", better), ("assistant", worse))))


def test_a_pair_is_the_template_s_text_and_the_prompt_is_what_both_answers_go_on_from(tokenizer, found, tmp_path):
    encoded = tokens.tokenize(found, tokenizer, 256, tmp_path)
    assert len(encoded) == len(found)
    for one, row in zip(found, encoded, strict=True):
        prompt = tokenizer.apply_chat_template(one.prompt, tokenize=False, add_generation_prompt=True)
        assert tokenizer.decode(row.chosen) == tokenizer.apply_chat_template(one.prompt + one.chosen, tokenize=False)
        assert tokenizer.decode(row.rejected) == tokenizer.apply_chat_template(one.prompt + one.rejected, tokenize=False)
        assert tokenizer.decode(row.chosen[: row.prompt]) == prompt
        assert row.chosen[-1] == row.rejected[-1] == tokenizer.eos_token_id


def test_a_token_that_reaches_from_the_prompt_into_the_answer_is_scored(tmp_path):
    """“ab” is one token: after a template without markers, a question's last letter melts with an answer's first."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    letters = {letter: at for at, letter in enumerate(["a", "b", "c", "!", "ab"])}
    plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(letters, [("a", "b")])), eos_token="!")
    plain.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    row = tokens.tokenize([pair("ca", "bb", "cc")], plain, 64, tmp_path)[0]
    assert row.prompt == 1
    assert plain.convert_ids_to_tokens(row.chosen) == ["c", "ab", "b", "!"]
    assert plain.convert_ids_to_tokens(row.rejected) == ["c", "a", "c", "c", "!"]


def test_an_end_is_added_where_the_template_writes_none(tokenizer, tmp_path):
    import copy

    endless = copy.deepcopy(tokenizer)
    endless.chat_template = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    row = tokens.tokenize([pair("one", "two", "three")], endless, 64, tmp_path)[0]
    assert row.chosen[-1] == row.rejected[-1] == tokenizer.eos_token_id


def test_a_text_begins_as_the_base_has_read_its_texts(tmp_path):
    """The tokenizer puts a token before every text, the template does not: it is in the ids all the same, and once."""
    from tokenizers import Tokenizer, processors

    folder = tmp_path / "model"
    shutil.copytree(MODEL, folder)
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    start = plain.token_to_id("<|pad|>")
    plain.post_processor = processors.TemplateProcessing(single="<|pad|> $A", special_tokens=[("<|pad|>", start)])
    plain.save(str(folder / "tokenizer.json"))
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"bos_token": "<|pad|>"}), encoding="utf-8")
    for template in ("own", "chatml"):
        tokenizer = load_tokenizer(ModelSettings(name=str(folder), template=template))
        row = tokens.tokenize([pair("one", "two", "three")], tokenizer, 64, tmp_path / "cache")[0]
        assert row.chosen[0] == row.rejected[0] == start and row.chosen.tolist().count(start) == 1


def test_nothing_is_longer_than_the_maximum_length(tokenizer, found, tmp_path):
    encoded = tokens.tokenize(found, tokenizer, 24, tmp_path)
    assert encoded.lengths[:, 1:].max() == 24


def test_the_second_run_with_the_same_pairs_reads_the_file(tokenizer, found, tmp_path):
    first, worked = tokens.tokenize(found, tokenizer, 256, tmp_path), []
    second = tokens.tokenize(found, tokenizer, 256, tmp_path, worked.append)
    assert not worked
    assert np.array_equal(first.ids, second.ids) and np.array_equal(first.bounds, second.bounds)


@pytest.mark.parametrize("change", ["length", "template", "pairs"])
def test_whatever_changes_the_ids_makes_a_new_file(tokenizer, found, tmp_path, change):
    import copy

    tokens.tokenize(found, tokenizer, 256, tmp_path)
    other = copy.deepcopy(tokenizer)
    if change == "template":
        other.chat_template += " "
    worked = []
    tokens.tokenize(found[1:] if change == "pairs" else found, other, 128 if change == "length" else 256, tmp_path, worked.append)
    assert worked and len(list(tmp_path.iterdir())) == 2


def test_a_file_half_written_is_not_taken_and_old_ones_go(tokenizer, found, tmp_path, monkeypatch):
    monkeypatch.setattr(tokens, "KEPT_SETS", 2)
    monkeypatch.setattr(tokens.np, "save", lambda *inputs: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        tokens.tokenize(found, tokenizer, 256, tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    monkeypatch.setattr(tokens, "KEPT_SETS", 2)
    for at, length in enumerate((32, 64, 128)):
        made = tokens.tokenize(found[:3], tokenizer, length, tmp_path)
        for folder in tmp_path.iterdir():
            os.utime(folder, (at, at)) if folder.stat().st_mtime > 10**6 else None
    assert len(list(tmp_path.iterdir())) == 2 and len(made) == 3


def test_a_part_of_the_pairs_is_a_view_of_the_same_file(tokenizer, found, tmp_path):
    whole = tokens.tokenize(found, tokenizer, 256, tmp_path)
    part = whole.at([7, 3])
    assert len(part) == 2 and np.array_equal(part[1].chosen, whole[3].chosen)
    assert part.ids is whole.ids


def test_pairs_that_leave_nothing_to_learn_are_counted_and_named(tokenizer, tmp_path):
    found = [pair("why " * 80, "good", "bad"), pair("short", "the same until " * 20 + "x", "the same until " * 20 + "y"), pair("fine", "yes", "no")]
    fitting = tokens.fitting(tokens.tokenize(found, tokenizer, 48, tmp_path), 48)
    assert fitting.places == [2]
    said = fitting.in_words(found)
    assert "1 of 3 rows are usable" in said and "1 has a question that fills the maximum length of 48" in said
    assert "1 has answers that are the same after the cut" in said and "“why why" in said and "“short”" in said


def test_a_template_that_refuses_a_turn_is_told(tokenizer, tmp_path):
    import copy

    strict = copy.deepcopy(tokenizer)
    strict.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(DataError, match="cannot hold these conversations.*System role"):
        tokens.tokenize([pair("a", "b", "c")], strict, 64, tmp_path)


def test_the_ids_are_those_that_the_reference_trains_on(tokenizer, found, tmp_path):
    from tests.reference import reference_rows

    rows = reference_rows(tokenizer, found, 256)
    for one, other in zip(tokens.tokenize(found, tokenizer, 256, tmp_path), rows, strict=True):
        assert one.chosen.tolist() == other["chosen_input_ids"] and one.rejected.tolist() == other["rejected_input_ids"]
        assert one.prompt == other["chosen_labels"].count(-100) == other["rejected_labels"].count(-100)
