"""Texts that are not what somebody said are found: a template's marks, words for nothing, structure as text, names. Others are not."""

import json
import time

import pytest

from studio.errors import DataError
from studio.preferences import doctor, edits
from studio.preferences.findings import Seen
from studio.preferences.formats import Asked
from studio.preferences.pairs import Pair
from studio.preferences.recognition import recognise


def pair(question, chosen, rejected):
    return Pair([{"role": "user", "content": question}], [{"role": "assistant", "content": chosen}], [{"role": "assistant", "content": rejected}])


def seen(pairs):
    return [Seen(number, one) for number, one in enumerate(pairs, 1)]


def findings(pairs):
    return {finding.name: finding for finding in doctor.examine(seen(pairs))}


def sound(count=60):
    return [pair(f"What is house number {at} like, and who lives there?", f"It is a tall house, where family {at * 37} has lived for years.",
                 f"No idea, ask at number {at + 1} instead.") for at in range(count)]


NEW = {"written-turns", "names-for-answers", "markup", "missing-words", "few-answers", "unasked-json"}

MARKED = {
    "<|user|>": pair("<|system|>You are fair.<|user|>How do I prune a rose bush?", "Cut out the dead wood.", "Cut it all."),
    "<|end|>": pair("How?", "Cut out the dead wood.<|end|>", "Cut it all."),
    "[INST]": pair("[INST] How? [/INST]", "So.", "No."),
    "<<SYS>>": pair("<<SYS>>Be kind.<</SYS>> How?", "So.", "No."),
    "### Human:": pair("How?", "So.\n### Human: And now?", "No."),
    "### Response:": pair("Below is a task.\n\n### Instruction:\nPrune.\n\n### Response:", "So.", "No."),
    "<start_of_turn>": pair("<start_of_turn>user\nHow?<end_of_turn>", "So.", "No."),
    "<|start_header_id|>": pair("How?", "<|start_header_id|>assistant<|end_header_id|>\n\nSo.", "No."),
    "<|a_mark_of_tomorrow|>": pair("How?", "So.<|a_mark_of_tomorrow|>", "No."),
    "<｜Assistant｜>": pair("How?<｜Assistant｜>", "So.", "No."),
    "</s>": pair("How?", "So.</s>", "No."),
    "Assistant:": pair("User: How?\nAssistant:", "So.", "No."),
    "<user>": pair("<user>\nHow?\n<assistant>\n", "So.", "No."),
    "Human:": pair("How?", "So.\n\nHuman: And now?\n\nAssistant: Now this.", "No."),
}


@pytest.mark.fault("T88")
@pytest.mark.parametrize("mark", MARKED)
def test_marks_of_any_template_are_named_with_their_side_and_row(mark):
    found = findings([*sound(), MARKED[mark]])["markup"]
    assert found.count == 1 and found.rows == (61,) and f"“{mark}" in found.words
    side = next(side for side, turns in (("question", MARKED[mark].prompt), ("better answer", MARKED[mark].chosen)) if mark in turns[0]["content"])
    assert f"the {side} (1)" in found.words and found.button == "Drop 1 with template marks"


def test_words_for_a_missing_value_are_named_and_an_answer_with_a_full_stop_is_none():
    rows = [("Who painted this?", "nan", "None"), ("Which year?", "null", "N/A"), ("What is the opposite of something?", "None.", "Everything.")]
    found = findings([*sound(), *(pair(*row) for row in rows)])["missing-words"]
    assert found.rows == (61, 62) and "2 of 63 pairs" in found.words
    assert "the better answer (2) and the worse answer (2)" in found.words and all(f"“{word}”" in found.words for word in ("nan", "None", "null", "N/A"))
    left = [one.pair for one in edits.Editor(edits.parse(found.edit)).pairs(seen([*sound(), *(pair(*row) for row in rows)]))]
    assert len(left) == 61 and "missing-words" not in findings(left)


@pytest.mark.parametrize("word", ["NaN", "<NA>", "#N/A", "-", "—", "NULL", "nil", "undefined", "[]", "{}", "(null)", "#VALUE!", " none "])
def test_every_program_s_word_for_nothing_is_one(word):
    assert "missing-words" in findings([*sound(), pair("Who painted this?", "Vermeer did.", word)])
    assert "missing-words" in findings([*sound(), pair(word, "Vermeer did.", "Rubens.")])


def test_a_few_turns_written_as_text_among_other_rows_are_a_finding():
    turns = [{"role": "user", "content": "How?"}, {"role": "assistant", "content": "So."}]
    found = findings([*sound(), pair("How?", json.dumps(turns), "No."), pair("How then?", "So.", repr(turns))])["written-turns"]
    assert found.weight == "bad" and found.rows == (61, 62) and "the better answer (1) and the worse answer (1)" in found.words


def test_json_that_nobody_asked_for_is_mentioned_with_its_fields():
    wrapped = [pair(f"Who lives at number {at}?", json.dumps({"reply": f"Family {at}.", "model": "m"}), json.dumps({"reply": "No idea.", "model": "m"})) for at in range(60)]
    found = findings(wrapped)["unasked-json"]
    assert found.count == 60 and "“reply”" in found.words


def test_names_and_labels_in_place_of_answers_are_told():
    names = findings([pair(f"What is house {at} like?", "north-7b", "south-8b") for at in range(60)])
    assert names["names-for-answers"].weight == "bad" and "“north-7b”" in names["names-for-answers"].words
    labels = findings([pair(f"What is house {at} like?", "helpful", "harmful") for at in range(60)])
    assert "“helpful”" in labels["few-answers"].words


NATURAL = [
    pair("Write a loop in Python.", "```python\nfor item in [1, 2]:\n    print(f\"<{item}>\")\n```", "while True: pass"),
    pair("Give me the page's head.", "<head>\n<title>Roses</title>\n<s>old</s> price\n</head>", "<user><name>Eve</name></user>"),
    pair("Which XML?", "<users>\n<user>\n<name>Eve</name>\n</user>\n<user>\n<name>Ann</name>\n</user>\n</users>", "<system/>"),
    pair("Give me the user as JSON.", '{"name": "Eve", "age": 31}', '{"name": "Eve"}'),
    pair("List three colours as a JSON array.", '["red", "green"]', '["red"]'),
    pair("Show a request body with one message.", '{"model": "m", "temperature": 0.2}', '{"model": "m"}'),
    pair("What does print(None) write in Python?", "None", "null"),
    pair("What does the function return for an empty list?", "[]", "nan"),
    pair("Which of them is a fruit, if any?", "None.", "All of them."),
    pair("How does ChatML mark a turn?", "With `<|im_start|>` and `<|im_end|>` around it.", "```\n<|user|>\n```"),
    pair("How is the bra-ket <psi|H|phi> read?", "As the expectation value, e.g. <x|y>.", "Not at all."),
    pair("What does `f <| x |> g` do in F#?", "a <| b |> c pipes both ways.", "Nothing."),
    pair("Which regex finds digits?", r"[0-9]+|(?<name>\d)", "[/]"),
    pair("Write a short dialogue between a user and an assistant.", "User: Hi!\nAssistant: Hello, how can I help?", "Nobody speaks.\nUser: Hi\nAssistant: Hi"),
    pair("What is the difference between INST and SYS?", "Two names in one template [see below].", "[Installation]"),
    pair("Structure my report.", "## Summary\n### Response times\n### Input data\nAll good.", "### Results"),
    pair("What is 3.5 + 2?", "5.5", "6"),
    pair("When does the train leave?", "16:45", "17:05"),
    pair("Which aircraft?", "A320", "Boeing-747"),
    pair("Capital of France?", "Paris", "Rome"),
    pair("Wie heißt das auf Deutsch: nil?", "nichts", "nil"),
    pair("Translate 'no'.", "Nein", "Na"[:2] + "in"),
    pair("他是谁？", "他是一位老师。", "不知道。"),
    pair("C++: how do I print?", "std::cout << \"x\" << std::endl;", "cout << x"),
    pair("What is a human: define it.", "Human: a member of the species.", "An ape."),
]


@pytest.mark.parametrize("one", NATURAL, ids=lambda one: one.prompt[0]["content"][:30])
def test_code_markup_and_json_that_belong_to_the_answer_are_not_found(one):
    assert not NEW & findings([*sound(), one]).keys()


@pytest.mark.fault("T88")
def test_conversations_in_cells_are_read_and_answers_that_are_json_stay_what_they_are():
    turns = [[{"role": "user", "content": f"Q{at}?"}, {"role": "assistant", "content": f"A{at}."}] for at in range(3)]
    rows = [{"prompt": one[0]["content"], "chosen": json.dumps(one), "rejected": json.dumps([one[0], {"role": "assistant", "content": "No."}])} for one in turns]
    found = recognise(list(rows[0]), rows)
    assert [taken.pair.chosen[0]["content"] for taken in found.read(enumerate(rows))] == ["A0.", "A1.", "A2."]
    assert "“chosen”, “rejected” hold lists or turns that were written as text; they are read back." in found.in_words()
    asked = [{"prompt": f"User {at} as JSON.", "chosen": json.dumps({"role": "admin", "name": f"n{at}"}), "rejected": json.dumps(["a", "b"])} for at in range(3)]
    kept = list(recognise(list(asked[0]), asked).read(enumerate(asked)))
    assert [taken.pair.chosen[0]["content"] for taken in kept] == [row["chosen"] for row in asked]
    assert {taken.pair.rejected[0]["content"] for taken in kept} <= {'["a", "b"]', "a", "b"}


def test_a_damaged_list_among_others_is_a_row_that_says_so():
    turns = [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "A."}]
    rows = [{"prompt": "Q?", "chosen": json.dumps(turns), "rejected": "No."}] * 20 + [{"prompt": "Q?", "chosen": json.dumps(turns)[:-9], "rejected": "No."}]
    assert list(recognise(list(rows[0]), rows).read(enumerate(rows)))[-1].reason.startswith("hold a damaged list in “chosen”")


@pytest.mark.fault("T88")
def test_model_names_are_never_answers():
    rows = [{"question": f"Q{at}?", "model_a": "north-7b", "model_b": "south-8b", "winner": "model_a"} for at in range(3)]
    with pytest.raises(Exception, match="“model_a” and “model_b” hold the names of models .such as “north-7b”. and not what they answered"):
        recognise(list(rows[0]), rows)
    texts = [row | {"model_a": f"It is house {at}.", "model_b": f"Not house {at}."} for at, row in enumerate(rows)]
    (first, *_) = recognise(list(texts[0]), texts, Asked()).read(enumerate(texts))
    assert first.pair.chosen[0]["content"] == "It is house 0."


HOSTILE = {"one long word": "aa_" * 40_000, "spaces": "</s>" + " " * 120_000 + "x", "lines": "[{'a': 1}" + "\n" * 120_000 + "x", "brackets": "[" * 120_000,
           "backticks": "`" * 60_001 + "<|x", "user lines": "\nUser: a\n\n" * 12_000, "bars": "<|" * 60_000, "array": "array(" + "), " * 40_000,
           "open list": '[{"role": "user", "content": "' + "\\" * 60_000, "better": "response_a " + "is " * 40_000}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_no_text_is_slow_to_look_at(text):
    row = {"prompt": text, "response_a": text, "response_b": f"{text} b", "winner": "a", "chosen": text}
    began = time.process_time()
    try:
        taken = list(recognise(list(row), [row]).read([(1, row)]))
    except DataError:
        taken = []
    doctor.examine([Seen(1, found.pair) for found in taken if found.pair] or [Seen(1, pair(text, text, text + "b"))])
    assert time.process_time() - began < 3
