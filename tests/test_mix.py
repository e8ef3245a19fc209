"""Several sources in one set: written a line each, read back, weighed; rows numbered through and all accounted for."""

import json

import pytest

from studio.engine import data
from studio.errors import DataError, SettingsError
from studio.preferences.facets import Facets
from studio.preferences.mix import Part, parse
from studio.settings import Settings


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def row(number, **more):
    return {"prompt": f"Why is {number}?", "chosen": f"Because {number}.", "rejected": f"No {number}.", **more}


def settings(path, *others, **more):
    return Settings.from_form(**{"data.source": str(path), "data.also": "\n".join(map(str, others)), **more}).data


def learned(reading, asked):
    train, held_out = data.divided(reading, list(range(len(reading.found))), asked)
    return [reading.found[place].number for place in train], [reading.found[place].number for place in held_out]


def test_sources_are_read_as_they_are_written():
    text = "HuggingFaceH4/ultrafeedback_binarized, weight 0.5, split train_prefs\n/data/a, b.jsonl, prompt my question\nowner/name"
    assert parse(text) == [Part("HuggingFaceH4/ultrafeedback_binarized", 0.5, split="train_prefs"),
                           Part("/data/a, b.jsonl", prompt="my question"), Part("owner/name")]
    assert "\n".join(map(str, parse(text))) == text


@pytest.mark.parametrize(("line", "told"), [("a/b, weight x", "out of range"), ("a/b, weight 0", "out of range"), ("a/b, weight nan", "out of range"),
                                            ("a/b, weight 101", "out of range"), ("a/b, split x, split y", "split twice")])
def test_a_source_that_cannot_be_read_is_told_under_its_field(line, told):
    with pytest.raises(SettingsError) as error:
        Settings.from_form(**{"data.also": line})
    assert told in error.value.problems["data.also"]


def test_sources_of_different_shapes_become_one_set_with_rows_numbered_through(tmp_path):
    one = write(tmp_path / "one.jsonl", [row(1), row(2)])
    two = write(tmp_path / "two.jsonl", [{"question": "q", "chosen": "a", "rejected": "b", "system": "s"}, {"question": "", "chosen": "a", "rejected": "b"}])
    stream = data.Stream(settings(one, two))
    assert [(seen.number, seen.pair.prompt[0]["role"]) for seen in stream] == [(1, "user"), (2, "user"), (3, "system")]
    assert stream.account.rows == 4 and stream.account.named == {"have no question": [4]}
    assert "one.jsonl (rows 1 to 2, weight 1)" in stream.in_words() and "two.jsonl (rows 3 to 4, weight 1)" in stream.in_words()


def test_a_weight_below_one_draws_that_share_and_the_rest_is_counted(tmp_path):
    path = write(tmp_path / "p.jsonl", map(row, range(1000)))
    stream = data.Stream(settings(path, **{"data.weight": 0.3}))
    count = len(list(stream))
    assert 250 < count < 350 and stream.account.undrawn == 1000 - count
    assert [seen.number for seen in data.Stream(settings(path, **{"data.weight": 0.3}))] == [
        seen.number for seen in data.Stream(settings(path, **{"data.weight": 0.3}))]
    assert f"{1000 - count} were not drawn" in stream.account.in_words()


def test_a_weight_above_one_repeats_pairs_in_training_only(tmp_path):
    one, two = write(tmp_path / "1.jsonl", map(row, range(40))), write(tmp_path / "2.jsonl", map(row, range(100, 140)))
    asked = settings(one, Part(str(two), 2.5), **{"data.held_out": 0.2})
    train, held_out = learned(data.read(asked), asked)
    assert len(held_out) == len(set(held_out)) == 16 and not set(train) & set(held_out)
    assert all(train.count(number) == 1 for number in train if number <= 40)
    assert {train.count(number) for number in train if number > 40} == {2, 3}


def test_pairs_that_an_edit_holds_out_are_those_that_are_measured(tmp_path):
    path = write(tmp_path / "p.jsonl", (row(at, split="test" if at % 5 == 0 else "train") for at in range(50)))
    asked = settings(path, **{"data.edits": "hold out split = test", "data.rows": 20})
    train, held_out = learned(data.read(asked), asked)
    assert sorted(held_out) == list(range(1, 51, 5)) and len(train) == 20 and not set(train) & set(held_out)


def test_nothing_left_to_learn_from_is_refused(tmp_path):
    path = write(tmp_path / "p.jsonl", (row(at, split="test") for at in range(5)))
    with pytest.raises(DataError, match="At least two pairs to learn from"):
        data.read(settings(path, **{"data.edits": "hold out split = test"}))


def test_a_column_of_one_source_alone_can_be_filtered_by(tmp_path):
    one, two = write(tmp_path / "1.jsonl", map(row, range(3))), write(tmp_path / "2.jsonl", (row(at, source="web") for at in range(3)))
    assert [seen.number for seen in data.Stream(settings(one, two, **{"data.edits": "drop source = web"}))] == [1, 2, 3]
    with pytest.raises(DataError, match="There is no column “topic”"):
        data.Stream(settings(one, two, **{"data.edits": "drop topic = web"}))


def test_columns_that_tell_rows_apart_are_found_with_their_counts():
    facets = Facets(["source", "id", "text", "empty", "same", "flag"])
    for number in range(100):
        facets.see({"source": "web" if number % 4 else "book", "id": number, "text": "x" * 61, "same": "a", "flag": number < 3})
    assert facets.found() == {"source": {"web": 75, "book": 25}, "flag": {"False": 97, "True": 3}}
