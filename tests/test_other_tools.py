"""Files as other tools and public data sets write them: the same four pairs come out of each, or the words say what is missing."""

import json

import pytest

from studio.preferences.formats import Asked
from studio.preferences.recognition import recognise

TALKS = [("How do I prune a rose bush?", "Cut out the dead wood first, then shape it in late winter.", "Just cut it all."),
         ("What is a leap year?", "A year of 366 days, with the 29th of February added.", "A year that leaps."),
         ("Name a river in Spain.", "The Ebro runs through Spain.", "The Danube."),
         ("How long do I boil an egg?", "Eight minutes for a firm yolk.", "Until it is done.")]
"""Question, better answer, worse answer."""


def turn(role, text, **more):
    return {"role": role, "content": text} | more


def talk(question, answer):
    return [turn("user", question), turn("assistant", answer)]


def parts(role, text):
    return {"role": role, "parts": [{"text": text}]}


def sides(better, worse, at):
    """The two answers as they stand, the better one first in every other row; and whether it is."""
    return (better, worse, True) if at % 2 == 0 else (worse, better, False)


def shapes(q, b, w, at):
    """One row of every tool, by its name."""
    one, two, first = sides(b, w, at)
    best = "ab"[not first]
    uid = f"{at:08x}-0000-4000-8000-00000000000{at}"
    return {
        "OpenAI preference file": {"input": {"messages": [turn("user", q)], "tools": [], "parallel_tool_calls": True},
                                   "preferred_output": [turn("assistant", b)], "non_preferred_output": [turn("assistant", w)]},
        "Azure's, with a system turn": {"input": {"messages": [turn("system", "Be kind."), turn("user", q)]},
                                        "preferred_output": [turn("assistant", b)], "non_preferred_output": [turn("assistant", w)]},
        "OpenAI with content parts": {"input": {"messages": [turn("user", [{"type": "input_text", "text": q}])]},
                                      "preferred_output": [turn("assistant", [{"type": "output_text", "text": b}])],
                                      "non_preferred_output": [turn("assistant", [{"type": "output_text", "text": w}])]},
        "Gemini on Vertex": {"contents": [parts("user", q)], "completions": [
            {"score": int(first), "completion": parts("model", one)}, {"score": int(not first), "completion": parts("model", two)}]},
        "Nova on Bedrock": {"system": [], "messages": [turn("user", [{"text": q}]), {"role": "assistant", "candidates": [
            {"content": [{"text": one}], "preferenceLabel": "preferred" if first else "non-preferred"},
            {"content": [{"text": two}], "preferenceLabel": "non-preferred" if first else "preferred"}]}]},
        "nested messages": {"id": uid, "chosen": {"messages": talk(q, b), "model": "m-7b"}, "rejected": {"messages": talk(q, w), "model": "n-8b"}},
        "answers in structs": {"prompt": q, "chosen": {"text": b, "model": "north-7b", "tokens": 12}, "rejected": {"text": w, "model": "south-8b", "tokens": 3}},
        "one struct for the row": {"row_idx": at, "row": {"question": q, "chosen": b, "rejected": w}, "truncated_cells": []},
        "Argilla's records": {"id": uid, "status": "completed", "fields": {"prompt": q, "response-1": one, "response-2": two}, "metadata": {"group": "g"},
                              "responses": {"preference": [{"value": f"response-{1 + (not first)}", "user_id": uid}]}},
        "Argilla's columns": {"prompt": q, "response_1": one, "response_2": two, "label.responses": [f"response_{1 + (not first)}"],
                              "label.responses.users": [uid], "label.responses.status": ["submitted"]},
        "Argilla's ranking": {"context": q, "response1": one, "response2": two, "preference": [{"user_id": uid, "status": "submitted", "value": [
            {"rank": 1, "value": "response1" if first else "response2"}, {"rank": 2, "value": "response2" if first else "response1"}]}]},
        "Label Studio": {"id": at, "data": {"prompt": q, "text1": one, "text2": two}, "annotations": [{"id": at, "completed_by": 1, "result": [
            {"value": {"selected": "left" if first else "right"}, "id": "x", "from_name": "pw", "type": "pairwise"}]}]},
        "Label Studio, JSON-MIN": {"prompt": q, "answer1": one, "answer2": two, "id": at, "comparison": "left" if first else "right", "annotator": 1},
        "Prodigy": {"text": q, "options": [{"id": "x1", "text": one}, {"id": "x2", "text": two}], "accept": ["x1" if first else "x2"], "answer": "accept"},
        "ms-swift": {"messages": talk(q, b), "rejected_response": w},
        "ms-swift with rejected messages": {"messages": talk(q, b), "rejected_messages": talk(q, w)},
        "ms-swift of old": {"query": q, "response": b, "rejected_response": w, "system": ""},
        "ms-swift, several": {"messages": talk(q, b), "rejected_response": [w]},
        "LLaMA-Factory, history": {"instruction": q, "input": "", "history": [], "chosen": b, "rejected": w},
        "LLaMA-Factory v1": {"chosen_messages": [{"role": "user", "content": [{"type": "text", "value": q}], "loss_weight": 0.0},
                                                 {"role": "assistant", "content": [{"type": "text", "value": b}], "loss_weight": 1.0}],
                             "rejected_messages": [{"role": "user", "content": [{"type": "text", "value": q}], "loss_weight": 0.0},
                                                   {"role": "assistant", "content": [{"type": "text", "value": w}], "loss_weight": 1.0}]},
        "Axolotl's chat_template": {"messages": [turn("user", q)], "chosen": turn("assistant", b), "rejected": turn("assistant", w)},
        "XTuner": {"prompt": [turn("user", q)], "chosen": [turn("assistant", b)], "rejected": [turn("assistant", w)]},
        "hh_rlhf_cn": {"context": [{"role": "human", "text": q}], "chosen": {"role": "assistant", "text": b}, "rejected": {"role": "assistant", "text": w}},
        "arena with 55k": {"id": at, "model_a": "north-7b", "model_b": "south-8b", "prompt": json.dumps([q]), "response_a": json.dumps([one]),
                           "response_b": json.dumps([two]), "winner_model_a": int(first), "winner_model_b": int(not first), "winner_tie": 0},
        "arena with 140k": {"id": uid, "model_a": "north-7b", "model_b": "south-8b", "winner": f"model_{best}", "evaluation_session_id": uid,
                            "conversation_a": [turn("user", [{"type": "text", "text": q, "image": None, "mimeType": None}], num_tokens=3),
                                               turn("assistant", [{"type": "text", "text": one, "image": None, "mimeType": None}], num_tokens=3)],
                            "conversation_b": [turn("user", [{"type": "text", "text": q, "image": None, "mimeType": None}], num_tokens=3),
                                               turn("assistant", [{"type": "text", "text": two, "image": None, "mimeType": None}], num_tokens=3)],
                            "language": "en", "is_code": False},
        "winner by the model's name": {"question": q, "model_a": "north-7b", "model_b": "south-8b", "answer_a": one, "answer_b": two,
                                       "winner": "north-7b" if first else "south-8b"},
        "MT-bench judgements": {"question_id": at, "model_a": "north-7b", "model_b": "south-8b", "winner": f"model_{best}", "judge": "expert_0",
                                "conversation_a": talk(q, one), "conversation_b": talk(q, two), "turn": 1},
        "Prometheus": {"orig_instruction": q, "orig_response_A": one, "orig_response_B": two, "orig_preference": best.upper(),
                       "orig_feedback_A": "Good but short.", "orig_feedback_B": "Short but good.", "orig_reference_answer": "None needed here, really.",
                       "orig_criteria": "Is it kind?", "instruction": f"###Task: judge {q} A: {one} B: {two}", "output": f"Feedback. [RESULT] {best.upper()}"},
        "WebGPT": {"question": {"dataset": "eli5", "id": uid, "full_text": q}, "answer_0": one, "answer_1": two, "tokens_0": {"prefix": [1], "completion": [2]},
                   "tokens_1": {"prefix": [1], "completion": [2]}, "score_0": 1.0 if first else -1.0, "score_1": -1.0 if first else 1.0},
        "summaries from feedback": {"info": {"id": "t3_x", "post": q, "title": "T", "subreddit": "r"}, "summaries": [
            {"text": one, "policy": "sup2", "note": ""}, {"text": two, "policy": "ref", "note": ""}], "choice": int(not first), "worker": "w"},
        "StackExchange preferences": {"qid": at, "question": q, "answers": [{"answer_id": 1, "author": "x", "pm_score": 5 if first else 1, "selected": first, "text": one},
                                                                           {"answer_id": 2, "author": "y", "pm_score": 1 if first else 5, "selected": False, "text": two}]},
        "PKU-SafeRLHF": {"prompt": q, "response_0": one, "response_1": two, "prompt_source": "p", "response_0_source": "Alpaca-7B", "response_1_source": "Alpaca2-7B",
                         "is_response_0_safe": True, "is_response_1_safe": True, "response_0_harm_category": {"Theft": False}, "response_1_harm_category": {"Theft": False},
                         "better_response_id": int(not first), "safer_response_id": 0, "response_0_sha256": "0" * 64, "response_1_sha256": "1" * 64},
        "AlpacaFarm": {"instruction": q, "input": "", "output_1": one, "output_2": two, "preference": 1 + (not first)},
        "JudgeLM": {"question_body": q, "answer1_body": one, "answer2_body": two, "score": [8.0, 3.0] if first else [2.0, 9.0], "answer1_model_id": "north-7b",
                    "answer2_model_id": "south-8b"},
        "ranks beside": {"prompt": q, "answer_1": one, "answer_2": two, "rank_1": 1 + (not first), "rank_2": 1 + first},
        "ranked by letters": {"prompt": q, "response_a": one, "response_b": two, "ranked_responses": ["a", "b"] if first else ["b", "a"]},
        "the preferred text itself": {"question": q, "answer_a": one, "answer_b": two, "preferred_answer": b},
        "answers of an API": {"prompt": q, "chosen": {"choices": [{"message": turn("assistant", b)}]}, "rejected": {"choices": [{"message": turn("assistant", w)}]}},
        "verdict in words": {"question": q, "answer_a": one, "answer_b": two, "verdict": f"Response {best.upper()} is much better"},
        "verdict in brackets": {"question": q, "assistant_a": one, "assistant_b": two, "judgment": f"[[{best.upper()}]]"},
        "verdict with signs": {"question": q, "output_a": one, "output_b": two, "preference": "A>>B" if first else "B>A"},
        "left and right": {"frage": q, "left": one, "right": two, "choice": "left" if first else "right"},
        "columns named A and B": {"Question": q, "A": one, "B": two, "Winner": best.upper()},
        "a column that names a column": {"prompt": q, "gpt": one, "llama": two, "chosen": "gpt" if first else "llama", "rejected": "llama" if first else "gpt"},
        "chosen and rejected hold marks": {"prompt": q, "response_a": one, "response_b": two, "chosen": f"model_{best}",
                                           "rejected": f"model_{'ab'[first]}"},
        "chosen and rejected hold the models' names": {"prompt": q, "model_a": "north-7b", "model_b": "south-8b", "answer_a": one, "answer_b": two,
                                                       "chosen": "north-7b" if first else "south-8b", "rejected": "south-8b" if first else "north-7b"},
        "several worse columns": {"prompt": q, "chosen": b, "rejected_1": w, "rejected_2": ""},
        "DPO's own letters": {"x": q, "y_w": b, "y_l": w},
        "three texts": {"anything": q, "preferred": b, "dispreferred": w},
        "camel case": {"userPrompt": q, "chosenResponse": b, "rejectedResponse": w},
        "authors": {"conversation": [{"author": {"role": "user"}, "content": {"parts": [q]}}], "chosen": b, "rejected": w},
        "speakers": {"dialogue": [{"speaker": "user", "text": q}], "good_reply": {"speaker": "bot", "text": b}, "bad_reply": {"speaker": "bot", "text": w}},
        "NumPy's print of turns": {"prompt": q, "chosen": f"[{{'content': {q!r}, 'role': 'user'}}\n {{'content': {b!r}, 'role': 'assistant'}}]",
                                   "rejected": f"[{{'content': {q!r}, 'role': 'user'}}\n {{'content': {w!r}, 'role': 'assistant'}}]"},
        "Python's print of turns": {"prompt": q, "chosen": repr(talk(q, b)), "rejected": repr(talk(q, w))},
        "JSON in JSON": {"prompt": q, "chosen": json.dumps(json.dumps(talk(q, b))), "rejected": json.dumps(json.dumps(talk(q, w)))},
        "a turn as JSON": {"prompt": json.dumps([turn("user", q)]), "chosen": json.dumps(turn("assistant", b)), "rejected": json.dumps(turn("assistant", w))},
        "a row as JSON": {"text": json.dumps({"prompt": q, "chosen": b, "rejected": w})},
        "lists as JSON": {"prompt": q, "responses": json.dumps([one, two]), "ratings": json.dumps([5, 2] if first else [1, 4])},
        "worse answers as JSON": {"prompt": q, "chosen": b, "rejected": json.dumps([w])},
        "Llama 3's marks": {"prompt": f"<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n{q}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
                            "chosen": f"{b}<|eot_id|>", "rejected": f"{w}<|eot_id|>"},
        "Gemma's marks": {"prompt": f"<bos><start_of_turn>user\n{q}<end_of_turn>\n<start_of_turn>model\n", "chosen": f"{b}<end_of_turn>", "rejected": w},
        "Llama 2's marks": {"prompt": f"<s>[INST] {q} [/INST]", "chosen": f" {b} </s>", "rejected": f" {w} </s>"},
        "headings": {"prompt": f"### Human: {q}\n### Assistant:", "chosen": f" {b}", "rejected": f" {w}"},
        "Vicuna's words": {"prompt": f"USER: {q} ASSISTANT:", "chosen": b, "rejected": w},
        "words before colons": {"prompt": f"User: {q}\nAssistant:", "chosen": b, "rejected": w},
        "DeepSeek's marks": {"prompt": f"<｜begin▁of▁sentence｜><｜User｜>{q}<｜Assistant｜>", "chosen": f"{b}<｜end▁of▁sentence｜>", "rejected": w},
    }


NAMES = list(shapes(*TALKS[0], 0))


def rows_of(name):
    return [shapes(*one, at)[name] for at, one in enumerate(TALKS)]


def taken(rows, asked=Asked()):  # noqa: B008 - it cannot change
    names = list(dict.fromkeys(name for row in rows for name in row))
    found = recognise(names, rows, asked)
    return found, list(found.read(enumerate(rows, 1)))


def said(pair):
    return tuple("".join(one["content"].strip() for one in side if one["role"] != "system") for side in (pair.prompt, pair.chosen, pair.rejected))


@pytest.mark.parametrize("name", NAMES)
def test_the_same_pairs_come_out_of_every_tool_s_file(name):
    found, rows = taken(rows_of(name))
    assert [row.reason for row in rows if not row.pair] == [], found.in_words()
    assert [said(row.pair) for row in rows] == TALKS, found.in_words()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("answers in structs", "WebGPT")])
def test_a_table_whose_cells_are_texts_gives_the_same(name):
    """What pandas writes into CSV: every value that is no text becomes one."""
    rows = [{key: value if isinstance(value, str) else json.dumps(value) if isinstance(value, (list, dict)) else str(value) for key, value in row.items()}
            for row in rows_of(name)]
    found, rows = taken(rows)
    assert [said(row.pair) if row.pair else row.reason for row in rows] == TALKS, found.in_words()


def test_earlier_turns_are_kept_in_whichever_way_they_are_written():
    start, (q, b, w) = talk("Hi", "Hello"), TALKS[0]
    for history in ([["Hi", "Hello"]], start, ["Hi", "Hello"], [{"user": "Hi", "bot": "Hello"}], json.dumps([["Hi", "Hello"]]), "[['Hi', 'Hello']]"):
        found, rows = taken([{"history": history, "question": q, "chosen": b, "rejected": w}])
        assert rows[0].pair.prompt == [*start, turn("user", q)], found.in_words()
        assert "the turns before it from “history”" in found.in_words()
    assert taken([{"history": ["Hi", "Hello", "Oh"], "question": q, "chosen": b, "rejected": w}])[1][0].reason == (
        "hold earlier turns of which it is not clear who speaks")


def test_numbers_on_single_answers_make_pairs_of_those_to_one_question():
    rows = [{"prompt": q, "response": text, "helpfulness": grade} for q, b, w in TALKS for text, grade in ((w, 1), (b, 4))]
    found, read = taken(rows)
    assert [said(row.pair) for row in read if row.pair] == TALKS and "which “helpfulness” rates" in found.in_words()


def test_images_are_refused_in_words():
    parts_with = ([{"type": "image_url", "image_url": {"url": "u"}}], [{"inlineData": {"data": "x"}}], [{"image": {"format": "png"}}], [{"type": "image"}])
    for content in parts_with:
        row = {"messages": [turn("user", [*content, {"type": "text", "text": "Q?"}])], "chosen": turn("assistant", "A."), "rejected": turn("assistant", "B.")}
        assert taken([row])[1][0].reason == "hold an image, which this studio does not train on"
