"""Edits as text: written, read back, applied in order, counted; the source is never touched."""

import json

import pytest

from studio.errors import DataError, SettingsError
from studio.preferences.edits import Editor, parse
from studio.preferences.findings import Seen
from studio.preferences.pairs import Pair
from studio.settings import Settings


def pair(question="q", chosen="a", rejected="b"):
    return Pair([{"role": "user", "content": question}], [{"role": "assistant", "content": chosen}],
                [{"role": "assistant", "content": rejected}])


def edited(text, *pairs):
    editor = Editor(parse(text))
    found = list(editor.pairs(Seen(number, one) for number, one in enumerate(pairs, start=1)))
    return found, editor


def test_edits_are_read_as_they_are_written():
    text = "drop duplicates; swap all; drop 3, 17; swap 12; drop source = web; keep lang = en; hold out split = test; join system"
    assert "; ".join(map(str, parse(text))) == text
    assert parse(" ; ") == []


@pytest.mark.parametrize(("text", "told"), [
    ("remove 3", "“remove 3” is no edit"), ("drop", "is no edit"), ("drop all", "names nothing"), ("drop x", "duplicates"),
    ("keep 3", "names nothing"), ("drop 3, x", "names nothing"), ("swap a = b", "names nothing"), ("drop -3", "names nothing"),
    ("drop ²", "names nothing"), ("hold out 3", "names nothing"), ("join all", "names nothing"), ("rewrite 3", "names nothing"),
    ('rewrite 3 {"chosen"}', "not JSON"), ('rewrite 3 {"story": "x"}', "gives no texts"), ('rewrite 3 {"chosen": " "}', "gives no texts"),
    ('rewrite 3 {"chosen": "x"} drop 4', "Put a semicolon"), ("rewrite 3 {}", "gives no texts"),
])
def test_what_is_no_edit_is_told_with_what_would_be_one(text, told):
    with pytest.raises(DataError, match=told):
        parse(text)


def test_the_form_says_what_is_wrong_with_an_edit_under_its_field():
    with pytest.raises(SettingsError) as error:
        Settings.from_form(**{"data.edits": "drop everything"})
    assert "names nothing that can be edited" in error.value.problems["data.edits"]
    assert Settings.from_form(**{"data.edits": " drop   3 ;swap all; "}).data.edits == "drop 3; swap all"


def test_rows_are_dropped_and_swapped_by_their_numbers():
    found, editor = edited("drop 1; swap 3", pair("x"), pair("y"), pair("z", "good", "bad"))
    assert [seen.number for seen in found] == [2, 3]
    assert found[1].pair.chosen[0]["content"] == "bad" and editor.counts == [1, 1] and editor.dropped == 1
    assert editor.in_words() == "Edits: “drop 1” concerned 1; “swap 3” concerned 1."


def test_a_check_of_the_doctor_names_what_is_dropped():
    found, editor = edited("drop duplicates", pair(), pair("other"), pair())
    assert [seen.number for seen in found] == [1, 2] and editor.counts == [1]


def test_swapping_all_twice_changes_nothing():
    found, _ = edited("swap all; swap all", pair("x", "a", "b"))
    assert found[0].pair == pair("x", "a", "b")


def test_edits_follow_one_another():
    """After the swap the two are duplicates; before it they are not."""
    pairs = pair("q", "a", "b"), pair("q", "b", "a")
    assert len(edited("drop duplicates; swap 2", *pairs)[0]) == 2
    assert len(edited("swap 2; drop duplicates", *pairs)[0]) == 1


def test_rows_are_kept_by_the_value_of_a_column():
    editor = Editor(parse("keep source = books; drop quality = 1"))
    rows = [{"source": "books", "quality": 2}, {"source": "web", "quality": 2}, {"source": "books", "quality": 1}, {"quality": 2}]
    assert [editor.lets_pass(number, row) for number, row in enumerate(rows)] == [True, False, False, False]
    assert editor.counts == [2, 1] and editor.dropped == 3


def test_a_column_that_is_not_there_is_told_with_those_that_are():
    with pytest.raises(DataError, match="no column “source” to keep by; the columns are text"):
        Editor(parse("keep source = books")).check_columns(["text"])


def test_rows_are_held_out_by_the_value_of_a_column():
    editor = Editor(parse("hold out split = test"))
    assert editor.holds_out and all(editor.lets_pass(number, {"split": split}) for number, split in enumerate(("train", "test", "train")))
    assert [seen.held_out for seen in editor.pairs(Seen(number, pair()) for number in range(3))] == [False, True, False]
    assert editor.dropped == 0 and editor.in_words() == "Edits: “hold out split = test” concerned 1."


def test_a_row_is_rewritten_and_its_text_may_hold_anything():
    said = 'Yes; it "does" = {so}. ; drop 1\nNew line “é”'
    text = f"swap 2; rewrite 1 {json.dumps({'chosen': said}, ensure_ascii=False)}; drop 2"
    assert "; ".join(map(str, parse(text))) == text
    (found,), editor = edited(text, pair("x", "old", "bad"), pair("y"))
    assert found.pair == pair("x", said, "bad") and editor.counts == [1, 1, 1] and editor.dropped == 1


def test_rewriting_changes_the_last_turn_of_a_part_and_leaves_the_others():
    talk = Pair([{"role": "system", "content": "s"}, {"role": "user", "content": "q"}], pair().chosen, pair().rejected)
    (found,), _ = edited('rewrite 1 {"prompt": "new"}', talk)
    assert [turn["content"] for turn in found.pair.prompt] == ["s", "new"]


def test_a_rewrite_that_makes_both_answers_the_same_is_refused():
    with pytest.raises(DataError, match="makes both answers the same"):
        edited('rewrite 1 {"chosen": "b"}', pair("q", "a", "b"))


def test_a_system_turn_is_put_before_the_question():
    with_system = Pair([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why?"}], pair().chosen, pair().rejected)
    found, editor = edited("join system", with_system, pair("y"))
    assert [seen.pair.prompt for seen in found] == [[{"role": "user", "content": "Be kind.\n\nWhy?"}], pair("y").prompt]
    assert editor.counts == [1]


def test_leaks_are_dropped_from_the_held_out_pairs_only():
    editor = Editor(parse("drop leaks"))
    train, held_out = [Seen(1, pair("same")), Seen(2, pair("other"))], [Seen(3, pair("same", "c", "d")), Seen(4, pair("new"))]
    assert len(list(editor.pairs(train + held_out))) == 4
    assert editor.leaks(train, held_out) == {3} and editor.counts == [1]
    assert Editor(parse("drop 9")).leaks(train, held_out) == set()
