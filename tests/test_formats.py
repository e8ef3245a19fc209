"""Preference data as it is published becomes pairs; what was recognised is told, and rows that are no pair say why."""

import random
from collections import Counter
from itertools import count, islice

import pytest

from studio.errors import DataError
from studio.preferences import formats
from studio.preferences.formats import Asked
from studio.preferences.recognition import recognise


def user(text):
    return {"role": "user", "content": text}


def bot(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


def human(text):
    return {"from": "human", "value": text}


def gpt(text):
    return {"from": "gpt", "value": text}


def read(rows, asked=Asked()):  # noqa: B008 - it cannot change
    rows = list(rows)
    return list(recognise(list(rows[0]), rows[:200], asked).read(enumerate(rows, 1)))


def only(row, asked=Asked()):  # noqa: B008 - it cannot change
    """The pair of a row that makes one, as a tuple."""
    (taken,) = read([row], asked)
    assert taken.pair, taken.reason
    return taken.pair.prompt, taken.pair.chosen, taken.pair.rejected


def words(row, asked=Asked()):  # noqa: B008 - it cannot change
    return recognise(list(row), [row], asked).in_words()


EXPECTED = ([user("Why?")], [bot("Because.")], [bot("No.")])
BRIEF = ([system("Be brief."), user("Why?")], [bot("Because.")], [bot("No.")])
HH = "\n\nHuman: Why?\n\nAssistant:"
CHATML = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"

FORMATS = {
    "strings": {"prompt": "Why?", "chosen": "Because.", "rejected": "No."},
    "capital letters": {"Prompt": "Why?", "Chosen": "Because.", "Rejected": "No."},
    "good and bad": {"question": "Why?", "good": "Because.", "bad": "No."},
    "explicit conversations": {"prompt": [user("Why?")], "chosen": [bot("Because.")], "rejected": [bot("No.")]},
    "text beside answers in lists": {"prompt": "Why?", "chosen": [bot("Because.")], "rejected": [bot("No.")]},
    "turns beside texts": {"prompt": [user("Why?")], "chosen": "Because.", "rejected": "No."},
    "trl-lib/ultrafeedback_binarized": {
        "chosen": [user("Why?"), bot("Because.")], "rejected": [user("Why?"), bot("No.")], "score_chosen": 8.0, "score_rejected": 9.5},
    "HuggingFaceH4/ultrafeedback_binarized": {
        "prompt": "Why?", "prompt_id": "f00d", "chosen": [user("Why?"), bot("Because.")], "rejected": [user("Why?"), bot("No.")],
        "messages": [user("Why?"), bot("Because.")], "score_chosen": 8.0, "score_rejected": 4.0},
    "mlabonne/orpo-dpo-mix-40k": {
        "source": "Airoboros", "chosen": [user("Why?"), bot("Because.")], "rejected": [user("Why?"), bot("No.")], "prompt": "Why?", "question": "Why?"},
    "argilla/ultrafeedback-binarized-preferences": {
        "source": "evol", "instruction": "Why?", "chosen_response": "Because.", "rejected_response": "No.", "chosen_avg_rating": 4.5,
        "rejected_avg_rating": 2.0, "chosen_model": "bard"},
    "lvwerra/stack-exchange-paired": {"qid": 7, "question": "Why?", "date": "2020/01/01", "metadata": ["a"], "response_j": "Because.", "response_k": "No."},
    "alpaca without an input": {"instruction": "Why?", "input": "", "chosen": "Because.", "rejected": "No."},
    "LLaMA-Factory comparisons": {"instruction": "Why?", "input": "", "output": ["Because.", "No."]},
    "LLaMA-Factory ShareGPT": {"conversations": [human("Why?")], "chosen": gpt("Because."), "rejected": gpt("No."), "tools": None},
    "ShareGPT whole": {"chosen": [human("Why?"), gpt("Because.")], "rejected": [human("Why?"), gpt("No.")]},
    "openbmb/UltraInteract_pair": {
        "task": "Coding", "id": "1", "trajectory": [{"from": "user", "value": "Why?"}], "chosen": "Because.", "rejected": "No."},
    "Anthropic/hh-rlhf": {"chosen": f"{HH} Because.", "rejected": f"{HH} No."},
    "Dahoas/full-hh-rlhf": {"prompt": HH, "response": " Because.", "chosen": "Because.", "rejected": "No."},
    "Arrow's struct of lists": {"prompt": {"role": ["user"], "content": ["Why?"]}, "chosen": "Because.", "rejected": "No."},
    "a whole conversation beside an answer": {"chosen": [user("Why?"), bot("Because.")], "rejected": "No."},
    "PKU-Alignment/PKU-SafeRLHF": {
        "prompt": "Why?", "response_0": "No.", "response_1": "Because.", "is_response_0_safe": True, "better_response_id": 1, "safer_response_id": 0},
    "lmsys/chatbot_arena_conversations": {
        "question_id": "x", "model_a": "koala", "model_b": "gpt-4", "winner": "model_b", "judge": "arena_user_1", "turn": 1,
        "conversation_a": [user("Why?"), bot("No.")], "conversation_b": [user("Why?"), bot("Because.")], "language": "English"},
    "nvidia/HelpSteer3": {
        "domain": "general", "context": [user("Why?")], "response1": "Because.", "response2": "No.", "overall_preference": -2},
    "stanfordnlp/SHP": {"post_id": "x", "history": "Why?", "human_ref_A": "Because.", "human_ref_B": "No.", "labels": 1, "score_A": 2, "score_B": 9},
    "openbmb/UltraFeedback": {
        "source": "evol", "instruction": "Why?", "models": ["a", "b", "c"], "correct_answers": ["x"], "completions": [
            {"annotations": {"helpfulness": {"Rating": "5"}}, "model": "a", "response": "Hm.", "overall_score": 6.0, "fine-grained_score": 3.0},
            {"annotations": {"helpfulness": {"Rating": "5"}}, "model": "b", "response": "Because.", "overall_score": 8.0, "fine-grained_score": 4.5},
            {"annotations": {"helpfulness": {"Rating": "1"}}, "model": "c", "response": "No.", "overall_score": 10.0, "fine-grained_score": 1.5}]},
    "parallel lists": {"prompt": "Why?", "responses": ["No.", "Because.", "Hm."], "ratings": ["1", "5", "N/A"]},
    "berkeley-nest/Nectar": {
        "prompt": f"{HH} ", "num_responses": 3, "turns": 1, "answers": [
            {"answer": "No.", "model": "a", "rank": 3.0}, {"answer": "Hm.", "model": "b", "rank": 2.0}, {"answer": "Because.", "model": "c", "rank": 1.0}]},
    "rankings": {"prompt": "Why?", "completions": ["No.", "Because."], "rankings": [2, 1]},
    "rated structs stored as lists": {"prompt": "Why?", "completions": {"text": ["No.", "Because."], "score": [0.1, 0.9]}},
}


@pytest.mark.parametrize("row", FORMATS.values(), ids=FORMATS.keys())
def test_a_known_format_becomes_an_explicit_pair(row):
    assert only(row) == EXPECTED


WITH_SYSTEM = {
    "Intel/orca_dpo_pairs": {"system": "Be brief.", "question": "Why?", "chosen": "Because.", "rejected": "No."},
    "argilla/distilabel-intel-orca-dpo-pairs": {
        "system": "Be brief.", "input": "Why?", "chosen": "Because.", "rejected": "No.", "generations": ["Because.", "No."],
        "rating": [9.0, 5.0], "status": "unchanged", "chosen_score": 9.0},
    "distilabel with turns": {"system_prompt": "Be brief.", "instruction": "Why?", "chosen": [user("Why?"), bot("Because.")],
                              "rejected": [user("Why?"), bot("No.")], "chosen_rating": 4, "rejected_rating": 5},
    "mlabonne/chatml_dpo_pairs": {"prompt": CHATML, "chosen": "Because.<|im_end|>", "rejected": "No.<|im_end|>"},
    "whole in ChatML": {"chosen": f"{CHATML}Because.<|im_end|>\n", "rejected": f"{CHATML}No.<|im_end|>\n"},
    "ShareGPT with a system turn": {"conversations": [{"from": "system", "value": "Be brief."}, human("Why?")],
                                    "chosen": gpt("Because."), "rejected": gpt("No.")},
}


@pytest.mark.parametrize("row", WITH_SYSTEM.values(), ids=WITH_SYSTEM.keys())
def test_the_system_turn_is_kept(row):
    assert only(row) == BRIEF


def test_an_empty_system_column_adds_no_turn():
    assert only({"system": "", "question": "Why?", "chosen": "Because.", "rejected": "No."}) == EXPECTED


# --- the question -----------------------------------------------------------------------------------------------------


def test_turns_before_the_last_question_stay_in_the_prompt():
    start = [user("Hi"), bot("Hello"), user("Why?")]
    assert only({"prompt": "Why?", "chosen": [*start, bot("Because.")], "rejected": [*start, bot("No.")]})[0] == start


def test_an_instruction_and_its_input_are_one_question():
    row = {"instruction": "Translate.", "input": "Bonjour", "chosen": "Hello", "rejected": "Bye"}
    assert only(row)[0] == [user("Translate.\n\nBonjour")]
    assert only({**row, "instruction": None})[0] == [user("Bonjour")]
    assert "the question from “instruction” continued by “input”" in words(row)


def test_a_column_with_text_goes_before_one_with_numbers():
    assert only({"prompt": 17, "question": "Why?", "chosen": "Because.", "rejected": "No."}) == EXPECTED


def test_a_transcript_is_never_cut_inside_a_word():
    start = "\n\nHuman: Hi\n\nAssistant: Hello. \n\nHuman: Is it?\n\nAssistant:"
    prompt, chosen, rejected = only({"chosen": f"{start} yes, it is", "rejected": f"{start} yesterday it was"})
    assert prompt == [user("Hi"), bot("Hello."), user("Is it?")]
    assert (chosen, rejected) == ([bot("yes, it is")], [bot("yesterday it was")])


def test_answers_that_part_before_the_end_are_whole_tails():
    row = {"chosen": f"{HH} Because.\n\nHuman: Oh?\n\nAssistant: Yes.", "rejected": f"{HH} No."}
    assert only(row) == ([user("Why?")], [bot("Because."), user("Oh?"), bot("Yes.")], [bot("No.")])


def test_a_text_that_merely_speaks_of_humans_is_no_transcript():
    row = {"prompt": "Human: write a play", "chosen": "Fine.\n\nHuman: Hi", "rejected": "No."}
    assert only(row) == ([user("Human: write a play")], [bot("Fine.\n\nHuman: Hi")], [bot("No.")])


def test_content_in_parts_is_put_together():
    parts = [{"type": "text", "text": "Wh"}, {"type": "text", "text": "y?"}]
    assert only({"prompt": [{"role": "user", "content": parts}], "chosen": "Because.", "rejected": "No."}) == EXPECTED


def test_tool_turns_and_their_calls_are_kept():
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome", "country": None}}}
    asks = {"role": "assistant", "content": None, "tool_calls": [call], "tool_call_id": None, "name": None}
    told = {"role": "tool", "content": "18", "tool_calls": None, "tool_call_id": "1", "name": "weather"}
    start = [user("Warm?"), asks, told]
    row = {"chosen": [*start, bot("Mild.")], "rejected": [*start, bot("Hot.")], "tools": "[]"}
    assert only(row)[0] == [user("Warm?"), {"role": "assistant", "content": "", "tool_calls": [
        {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}]},
        {"role": "tool", "content": "18", "tool_call_id": "1", "name": "weather"}]
    assert "Not used: “tools”." in words(row)
    assert only({"prompt": "Warm?", "chosen": [asks], "rejected": "Hot."})[1][0]["content"] == ""


# --- which answer is better -------------------------------------------------------------------------------------------


def test_columns_that_are_named_keep_their_meaning_whatever_the_scores():
    row = FORMATS["trl-lib/ultrafeedback_binarized"]
    assert row["score_rejected"] > row["score_chosen"] and only(row) == EXPECTED


VOTES = {
    "letters": ("response_a", "response_b", "winner", ["a", "b", "tie", None], "ab--"),
    "capital letters": ("response_a", "response_b", "preference", ["A", "B", "", "A "], "ab-a"),
    "column names": ("answer_1", "answer_2", "better", ["answer_2", "answer_1"], "ba"),
    "models": ("response_a", "response_b", "winner", ["model_a", "model_b", "tie (bothbad)"], "ab-"),
    "from zero": ("response_a", "response_b", "label", [0, 1, 1, None], "abb-"),
    "from one": ("response_a", "response_b", "label", [1, 2, 1], "aba"),
    "from one, by the columns": ("response_1", "response_2", "chosen_index", [1, 1], "aa"),
    "from zero in spite of the columns": ("response_1", "response_2", "label", [0, 1], "ab"),
    "zero is a tie": ("answer_1", "answer_2", "preference", [0, 1, 2], "-ab"),
    "two is a tie": ("answer_0", "answer_1", "preference", [0, 1, 2], "ab-"),
    "decimals with gaps": ("response_0", "response_1", "chosen_index", [0.0, 1.0, None], "ab-"),
    "digits": ("output_1", "output_2", "preference", ["1", "2"], "ab"),
    "truth": ("response_0", "response_1", "label", [False, True], "ab"),
    "strength": ("response_1", "response_2", "preference_strength", [-3, 2, 0], "ab-"),
}


@pytest.mark.parametrize(("one", "other", "vote", "marks", "better"), VOTES.values(), ids=VOTES.keys())
def test_a_vote_says_which_answer_is_better(one, other, vote, marks, better):
    taken = read({"prompt": "q", one: "a", other: "b", vote: mark} for mark in marks)
    assert "".join(found.pair.chosen[0]["content"] if found.pair else "-" for found in taken) == better
    assert {found.reason for found in taken if not found.pair} <= {"have a tie, or no vote for one of the two answers"}


def test_ratings_that_tell_nothing_apart_say_so():
    rows = [{"prompt": "q", "responses": texts, "scores": scores} for texts, scores in [
        (["a", "b"], [1, 2]), (["a", "b"], [3, 3]), (["a", "b"], [3, None]), (["a", " "], [3, 4]), (["a", "b"], [1]), (None, None)]]
    assert [found.reason for found in read(rows)] == [
        "", "have answers that are all rated the same", "have fewer than two rated answers", "have fewer than two rated answers",
        "have another number of ratings than of answers", "have another number of ratings than of answers"]


# --- what is said -----------------------------------------------------------------------------------------------------

SAID = {
    "strings": "Takes the question from “prompt”, the better answer from “chosen” and the worse from “rejected”.",
    "mlabonne/orpo-dpo-mix-40k": "Takes the question from the conversations themselves (from “prompt” only where they hold none), the better "
                                 "answer from “chosen” and the worse from “rejected”. Not used: “source”, “question”.",
    "Anthropic/hh-rlhf": "Takes the question from the conversations themselves, the better answer from “chosen” and the worse from “rejected”; "
                         "the texts are transcripts (“Human:”, “Assistant:”).",
    "LLaMA-Factory comparisons": "Takes the question from “instruction” continued by “input” and both answers from “output”, of which the first is "
                                 "taken as the better.",
    "PKU-Alignment/PKU-SafeRLHF": "Takes the question from “prompt” and the answers from “response_0” and “response_1”; the better is the first where "
                                  "“better_response_id” is 0, the second where it is 1. Not used: “is_response_0_safe”, “safer_response_id”.",
    "stanfordnlp/SHP": "“human_ref_A” and “human_ref_B”; the better is the first where “labels” is 1, the second where it is 0.",
    "lmsys/chatbot_arena_conversations": "the better is the first where “winner” is model_a, the second where it is model_b.",
    "nvidia/HelpSteer3": "the better is the first where “overall_preference” is below 0, the second where it is above 0.",
    "openbmb/UltraFeedback": "the answers from “completions”: the one with the highest “fine-grained_score” as the better, "
                             "the one with the lowest as the worse. Not used: “source”, “models”, “correct_answers”.",
    "berkeley-nest/Nectar": "the one with the lowest “rank” as the better, the one with the highest as the worse; the texts are transcripts",
    "parallel lists": "“responses”: the one with the highest “ratings” as the better",
}


@pytest.mark.parametrize(("name", "said"), SAID.items(), ids=SAID.keys())
def test_what_was_recognised_is_told_in_words(name, said):
    assert said in words(FORMATS[name])


def test_kind_and_columns_by_role_can_be_asked_for():
    found = recognise(list(WITH_SYSTEM["Intel/orca_dpo_pairs"]), [WITH_SYSTEM["Intel/orca_dpo_pairs"]])
    assert (found.kind, found.columns) == ("named", {"prompt": "question", "system": "system", "chosen": "chosen", "rejected": "rejected"})


# --- rows that are no pair --------------------------------------------------------------------------------------------

FULL = [user("x"), bot("a")]
BROKEN = {
    "no question": ({"prompt": " "}, "have no question"),
    "a system turn alone": ({"prompt": [system("s")]}, "have no question"),
    "an empty question": ({"prompt": [user(" ")]}, "have no question"),
    "a question that ends with an answer": ({"prompt": FULL}, "have a question that does not end with a user turn"),
    "None as an answer": ({"chosen": None}, "have an empty answer"),
    "whitespace as an answer": ({"rejected": " \n"}, "have an empty answer"),
    "whitespace as a turn": ({"rejected": [bot("\n")]}, "have an empty answer"),
    "an empty list": ({"rejected": []}, "have an empty answer"),
    "an empty end of a conversation": ({"chosen": FULL, "rejected": [user("x"), bot("")]}, "have an empty answer"),
    "a user's answer": ({"chosen": [user("a")]}, "have an answer that is not the assistant's"),
    "a conversation that ends with a question": ({"chosen": [*FULL, user("y")], "rejected": FULL}, "have an answer that is not the assistant's"),
    "two questions": ({"prompt": [user("x"), user("y")]}, "have two user turns in a row"),
    "two answers": ({"chosen": [bot("x"), bot("y")]}, "have two assistant turns in a row"),
    "the assistant first": ({"prompt": [bot("Hi"), user("x")]}, "start with the assistant"),
    "the assistant first in conversations": ({"prompt": None, "chosen": [bot("Hi"), *FULL], "rejected": [bot("Hi"), user("x"), bot("b")]},
                                             "start with the assistant"),
    "a late system turn": ({"prompt": [user("x"), bot("y"), system("s"), user("z")]}, "have a system turn that is not the first"),
    "a tool that nobody called": ({"prompt": [user("x"), {"role": "tool", "content": "1"}]}, "have a tool turn that follows no assistant turn"),
    "questions that differ": ({"chosen": FULL, "rejected": [user("y"), bot("b")]}, "have different questions on the two sides"),
    "later questions that differ": ({"chosen": [*FULL, user("y"), bot("c")], "rejected": [*FULL, user("z"), bot("c")]},
                                    "have different questions on the two sides"),
    "the same answer": ({"rejected": " a"}, "have the same answer twice, which teaches nothing"),
    "a number as an answer": ({"chosen": 3}, "hold a number where text or turns belong"),
    "a struct as a question": ({"prompt": {"full_text": "q"}}, "hold a nested struct where text or turns belong"),
    "a number as content": ({"chosen": [{"role": "assistant", "content": 3}]}, "hold a number where text belongs"),
    "turns without text": ({"chosen": [{"role": "assistant", "content": None}]}, "hold turns without a text"),
    "turns without a role": ({"chosen": [{"content": "a"}]}, "hold turns without a role"),
    "turns that are texts": ({"chosen": [3]}, "hold turns that are not messages"),
    "an unknown role": ({"prompt": [{"role": "narrator", "content": "q"}]}, "hold turns of the unknown role “narrator”"),
    "an image in the turn": ({"prompt": [{"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "q"}]}]},
                             "hold an image, which this studio does not train on"),
    "an image beside it": ({"image": {"bytes": b"png", "path": None}}, "hold an image, which this studio does not train on"),
}
GOOD = {"prompt": "q", "chosen": "a", "rejected": "b", "image": None}


def test_a_few_odd_values_do_not_hide_a_format():
    single = [{"prompt": "q", "completion": f"a{number}", "label": number % 2} for number in range(19)]
    assert recognise(list(single[0]), [*single, {**single[0], "label": "?"}]).kind == "labelled"
    comparisons = [FORMATS["LLaMA-Factory comparisons"]] * 19
    assert recognise(list(comparisons[0]), [*comparisons, {**comparisons[0], "output": ["one"]}]).kind == "ordered"
    with pytest.raises(DataError, match="single answers"):
        recognise(list(single[0]), [{**row, "label": place} for place, row in enumerate(single)])


@pytest.mark.parametrize(("change", "reason"), BROKEN.values(), ids=BROKEN.keys())
def test_a_row_that_is_no_pair_says_why(change, reason):
    good, broken = read([GOOD, {**GOOD, **change}])
    assert good.pair and not broken.pair and broken.reason == reason


def test_a_missing_value_is_an_empty_answer():
    assert read([GOOD, {"prompt": "q", "chosen": "a"}])[1].reason == "have an empty answer"


def test_every_row_is_accounted_for_in_its_order():
    rows = [GOOD, *({**GOOD, **change} for change, _ in BROKEN.values()), GOOD]
    taken = read(rows)
    assert [found.number for found in taken] == list(range(1, len(rows) + 1))
    assert sum(found.pair is not None for found in taken) == 2
    assert Counter(found.reason for found in taken if found.reason) == Counter(reason for _, reason in BROKEN.values())


@pytest.mark.parametrize("row", [*FORMATS.values(), *WITH_SYSTEM.values()], ids=[*FORMATS, *WITH_SYSTEM])
def test_rows_are_read_as_they_come(row):
    taken = list(islice(recognise(list(row), [row]).read((number, row) for number in count()), 3))
    assert [found.number for found in taken] == [0, 1, 2] and all(found.pair for found in taken)


ODD = [None, "", " ", "x", 3, -1, float("nan"), 10**400, True, b"x", [], {}, [None], ["a", "b"], [[]], [{}], [3, 4], {"role": []}, [{"role": 3}],
       [{"role": "user", "content": {}}], [{"role": "user", "content": [{"type": ["x"]}]}], [{"role": "assistant", "content": "x", "tool_calls": 3}],
       [user("x")], [bot("x")], [user("x"), bot("y")], [human("x"), gpt(None)], "\n\nHuman:", "<|im_start|>", "<|im_start|>user\n", [{"text": "x", "score": "y"}]]


@pytest.mark.parametrize("row", [*FORMATS.values(), {"prompt": "q", "completion": "a", "label": 1}], ids=[*FORMATS, "single labels"])
def test_whatever_the_values_are_each_row_is_accounted_for(row):
    draw = random.Random(7)
    rows = [row] * 3 + [{name: draw.choice(ODD) if draw.random() < 0.4 else value for name, value in row.items()} for _ in range(300)]
    if "label" in row:
        rows[3] = row | {"completion": "b", "label": 0}  # without one that goes with the first, the set is refused
    taken = list(recognise(list(row), rows[:3]).read(enumerate(rows)))
    # A list of two texts is two answers, so that a row may be several pairs.
    assert sorted({found.number for found in taken}) == list(range(303))
    assert all((found.pair is None) != (found.reason == "") or row.get("label") for found in taken)
    for start in range(3, 300):
        try:
            recognise(list(row), rows[start : start + 2])
        except DataError as refusal:
            assert "the columns are" in str(refusal)


# --- single labels ----------------------------------------------------------------------------------------------------


def label(prompt, completion, good, **more):
    return {"prompt": prompt, "completion": completion, "label": good, **more}


def test_good_and_bad_answers_to_one_question_become_pairs():
    rows = [label("q", "g1", True), label("r", "x", True), label("q", "g2", True), label("q", "b1", False), label("q", "b2", False),
            label("q", "b3", False), label("s", "y", None), label("s", "", True)]
    taken = read(rows)
    assert sorted(found.number for found in taken) == list(range(1, 9))
    pairs = [(found.number, found.pair.chosen[0]["content"], found.pair.rejected[0]["content"]) for found in taken if found.pair]
    assert pairs == [(4, "g1", "b1"), (5, "g2", "b2")]
    assert sorted(found.number for found in taken if not found.pair and not found.reason) == [1, 3]
    assert {found.number: found.reason for found in taken if found.reason} == {
        2: "have a prompt with answers of one kind only", 6: "have no answer of the other kind left to go with",
        7: "have a label that is neither good nor bad", 8: "have an empty answer"}


def test_both_rows_of_a_pair_that_teaches_nothing_are_told():
    assert [found.reason[:20] for found in read([label("q", "a", 1), label("q", "a ", 0)])] == ["have the same answer"] * 2


@pytest.mark.parametrize("rows", [
    [label([user("Why?")], [bot("Because.")], True), label([user("Why?")], [bot("No.")], False)],
    [label("Why?", "No.", "bad"), label("Why?", "Because.", "good")],
    [{"messages": [user("Why?"), bot("No.")], "label": 0}, {"messages": [user("Why?"), bot("Because.")], "label": 1}],
], ids=["trl-lib/kto-mix-14k", "words", "LLaMA-Factory's kto_en_demo"])
def test_single_labels_are_recognised(rows):
    (pair,) = [found.pair for found in read(rows) if found.pair]
    assert (pair.prompt, pair.chosen, pair.rejected) == EXPECTED
    assert "which “label” calls good or bad" in recognise(list(rows[0]), rows).in_words()


def test_single_labels_whose_questions_never_meet_are_refused():
    rows = [label(f"q{number}", "a", number % 2 == 0) for number in range(300)]
    with pytest.raises(DataError, match=r"single labels \(KTO\), from which ORPO cannot learn.*Choose"):
        read(rows)
    assert sum(bool(found.pair) for found in read([*rows, label("q0", "b", False)])) == 1


def test_single_labels_without_end_are_refused_before_they_fill_the_memory(monkeypatch):
    monkeypatch.setattr(formats, "PATIENCE", 500)
    rows = [label("q", "a", True)]
    endless = ((number, label(f"q{number}", "a", True)) for number in count())
    with pytest.raises(DataError, match="single labels"):
        list(recognise(list(rows[0]), rows).read(endless))


def test_single_labels_add_up_however_they_are_mixed():
    draw = random.Random(0)
    rows = [label(f"q{draw.randrange(30)}", draw.choice("abcdef "), draw.random() < 0.6) for _ in range(500)]
    taken = read(rows)
    assert sorted(found.number for found in taken) == list(range(1, 501))
    assert sum(bool(found.pair) for found in taken) == sum(not found.pair and not found.reason for found in taken) > 100


# --- what is refused, and columns that are named ----------------------------------------------------------------------

REFUSED = {
    "nothing known": ({"story": "s", "topic": "t"}, "No column for chosen and rejected.*story, topic. Name the columns"),
    "no worse answer": ({"prompt": "q", "chosen": "a"}, "No column for rejected.*prompt, chosen. Name"),
    "single answers": ({"prompt": "q", "completion": "a"}, "“completion” holds single answers.*supervised fine-tuning.*no worse answer.*prompt, completion"),
    "conversations": ({"messages": [user("q"), bot("a")]}, "“messages” holds single answers.*supervised fine-tuning"),
    "plain text": ({"text": "Once", "id": 3}, "“text” holds single answers.*text, id"),
    "five stars": ({"prompt": "q", "response": "a", "label": 4}, "single answers"),
    "two answers without a vote": ({"prompt": "q", "response_a": "a", "response_b": "b"}, "hold two answers, but no column says which is better"),
    "answers without ratings": ({"prompt": "q", "completions": ["a", "b"]}, "“completions” holds several answers, but nothing rates them"),
    "no question": ({"chosen": "a", "rejected": "b"}, "No column with the question.*chosen, rejected. Name the prompt column"),
}


@pytest.mark.parametrize(("row", "told"), REFUSED.values(), ids=REFUSED.keys())
def test_data_without_pairs_is_refused_with_what_to_do(row, told):
    with pytest.raises(DataError, match=told):
        recognise(list(row), [row])


def test_columns_that_were_named_are_used():
    assert only({"q": "Why?", "a": "Because.", "b": "No."}, Asked("q", "a", "b")) == EXPECTED
    row = {**FORMATS["strings"], "worst": "Never."}
    assert only(row, Asked(rejected="worst"))[2] == [bot("Never.")]
    assert "the worse from “worst”. Not used: “rejected”." in words(row, Asked(rejected="worst"))


def test_a_prompt_that_was_named_goes_before_the_conversations_unless_it_repeats_them():
    start = [system("s"), user("Hi"), bot("Hello"), user("Why?")]
    row = {"prompt": "Why? ", "other": "Why not?", "chosen": [*start, bot("Because.")], "rejected": [*start, bot("No.")]}
    assert only(row, Asked(prompt="prompt"))[0] == start
    assert only(row, Asked(prompt="other"))[0] == [user("Why not?")]
    assert "from “other”, or from the conversations where they hold the same" in words(row, Asked(prompt="other"))


def test_columns_that_are_not_there_are_refused_with_those_that_are():
    with pytest.raises(DataError, match="no column “x”.*prompt, chosen"):
        recognise(list(FORMATS["strings"]), [FORMATS["strings"]], Asked(prompt="x"))
    with pytest.raises(DataError, match="“chosen” is named for both"):
        recognise(list(FORMATS["strings"]), [FORMATS["strings"]], Asked(chosen="chosen", rejected="chosen"))
