"""Rows of known formats become explicit pairs; rows that cannot are counted with their reason."""

import pytest

from studio.errors import DataError
from studio.pairs import Columns, pair, read, recognise


def user(text):
    return {"role": "user", "content": text}


def bot(text):
    return {"role": "assistant", "content": text}


EXPECTED = ([user("Why?")], [bot("Because.")], [bot("No.")])

FORMATS = {
    "strings": {"prompt": "Why?", "chosen": "Because.", "rejected": "No."},
    "explicit conversations": {"prompt": [user("Why?")], "chosen": [bot("Because.")], "rejected": [bot("No.")]},
    "implicit conversations": {"chosen": [user("Why?"), bot("Because.")], "rejected": [user("Why?"), bot("No.")]},
    "prompt text beside whole conversations": {"prompt": "Why?", "chosen": [user("Why?"), bot("Because.")],
                                               "rejected": [user("Why?"), bot("No.")]},
    "ShareGPT turns": {"chosen": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}],
                       "rejected": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "No."}]},
    "question and responses": {"question": "Why?", "chosen_response": "Because.", "rejected_response": "No."},
    "capital letters": {"Prompt": "Why?", "Chosen": "Because.", "Rejected": "No."},
}


@pytest.mark.parametrize("row", FORMATS.values(), ids=FORMATS.keys())
def test_a_known_format_becomes_an_explicit_pair(row):
    found = pair(row, recognise(row))
    assert (found.prompt, found.chosen, found.rejected) == EXPECTED


def test_the_question_beside_a_system_column_is_not_lost():
    row = {"system": "Be brief.", "question": "Why?", "chosen": "Because.", "rejected": "No."}
    assert pair(row, recognise(row)).prompt == [{"role": "system", "content": "Be brief."}, user("Why?")]


def test_turns_before_the_last_question_stay_in_the_prompt():
    start = [user("Hi"), bot("Hello"), user("Why?")]
    row = {"chosen": [*start, bot("Because.")], "rejected": [*start, bot("No.")]}
    assert pair(row, recognise(row)).prompt == start


def test_columns_that_were_named_are_used():
    row = {"q": "Why?", "a": "Because.", "b": "No."}
    assert pair(row, recognise(row, "q", "a", "b")).chosen == [bot("Because.")]


def test_columns_that_are_missing_are_told_with_those_that_are_there():
    with pytest.raises(DataError, match="chosen and rejected.*text, label"):
        recognise(["text", "label"])
    with pytest.raises(DataError, match="no column “x”.*prompt, chosen"):
        recognise(["prompt", "chosen", "rejected"], prompt="x")


COLUMNS = Columns("prompt", "chosen", "rejected")
BROKEN = {
    "no question": ({"prompt": " ", "chosen": "a", "rejected": "b"}, "no question"),
    "None as an answer": ({"prompt": "q", "chosen": None, "rejected": "b"}, "empty answer"),
    "whitespace as an answer": ({"prompt": "q", "chosen": "a", "rejected": " \n"}, "empty answer"),
    "a missing column": ({"prompt": "q", "chosen": "a"}, "empty answer"),
    "a number as an answer": ({"prompt": "q", "chosen": 3, "rejected": "b"}, "int where text"),
    "the same answer": ({"prompt": "q", "chosen": "a", "rejected": " a"}, "same answer"),
    "prompts that differ": ({"prompt": None, "chosen": [user("x"), bot("a")], "rejected": [user("y"), bot("b")]}, "no question"),
    "turns without text": ({"prompt": "q", "chosen": [{"role": "assistant", "content": None}], "rejected": "b"}, "without a role"),
    "a question that ends with an answer": ({"prompt": [user("q"), bot("a")], "chosen": "b", "rejected": "c"}, "end with a user"),
}


@pytest.mark.parametrize(("row", "reason"), BROKEN.values(), ids=BROKEN.keys())
def test_a_row_that_is_no_pair_says_why(row, reason):
    with pytest.raises(DataError, match=reason):
        pair(row, COLUMNS)


def test_the_counts_add_up_to_the_rows():
    good = {"prompt": "q", "chosen": "a", "rejected": "b"}
    reading = read([good, *(row for row, _ in BROKEN.values()), good], COLUMNS)
    assert len(reading.pairs) == 2
    assert reading.left_out.total() == len(BROKEN)
    assert "2 of 11 rows" in reading.in_words()
