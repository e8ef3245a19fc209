"""What a pair says is in the rendered text, or it is said what is lost: thinking, tool calls, tools, whole answers; and prompts ask as pairs did."""

import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from studio import events, jobs, runs
from studio.chat import Sampling
from studio.engine import data, fidelity, texts, tokens
from studio.engine.asking import Asker, Asking
from studio.engine.columns import Turns, write
from studio.engine.duet import Duet
from studio.engine.forecast import forecast
from studio.engine.look import look
from studio.engine.rendering import render
from studio.engine.vocabulary import load_tokenizer
from studio.practice import MODEL
from studio.preferences import doctor
from studio.preferences.findings import Seen
from studio.preferences.pairs import Pair
from studio.settings import ModelSettings, Settings
from studio.ui.examined import numbered_pair
from tests.jobs_at_work import ended, heard, log_of, practice

CASES = Path(__file__).parent / "cases"
TEMPLATES = Path(importlib.util.find_spec("trl").origin).parent / "chat_templates"
THINKING_TAKEN_OUT = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ '<|User|>' + message['content'] }}{% elif message['role'] == 'assistant' %}"
    "{% set said = message['content'] %}{% if '</think>' in said %}{% set said = said.split('</think>')[-1] %}{% endif %}"
    "{{ '<|Assistant|>' + said + '<|im_end|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{% endif %}")
TOOLS_LISTED = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}{% for turn in messages %}"
    "<|im_start|>{{ turn.role }}\n{{ turn.content }}{% for call in turn.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
WEATHER = {"type": "function", "function": {"name": "weather", "description": "Tells the weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}}}}


def asks(text: str) -> dict:
    return {"role": "user", "content": text}


def says(text: str, **more) -> dict:
    return {"role": "assistant", "content": text, **more}


def calls(**arguments) -> list[dict]:
    return [{"id": "call00001", "type": "function", "function": {"name": "weather", "arguments": json.dumps(arguments)}}]


def with_template(folder: Path, template: str) -> str:
    """A copy of the practice model with another chat template."""
    shutil.copytree(MODEL, folder)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return str(folder)


def settings(case: str, model: str = "practice", **changes) -> Settings:
    return practice(**{"data.source": str(CASES / f"{case}.jsonl"), "data.rows": None, "model.name": model, "data.held_out": 0.1} | changes)


def examined(asked: Settings) -> dict[str, tuple]:
    """The findings of the forecast by name: weight, count and words."""
    seen = list(data.Stream(asked.data))
    return {one.name: (one.weight, one.count, one.words) for one in forecast(asked, seen, len(seen), None).findings}


def trained(root: Path, asked: Settings) -> tuple[runs.Run, str]:
    run = runs.create(root, asked)
    jobs.start(jobs.of(run))
    return run, ended(run)


# --- what is lost -----------------------------------------------------------------------------------------------------


def test_thinking_that_the_template_takes_out_is_missed_in_the_rendered_text_and_not_blamed_on_the_length(tmp_path):
    found = examined(settings("thinking_answers", with_template(tmp_path / "base", THINKING_TAKEN_OUT)))
    assert found["lost-thinking"] == ("bad", 40, "40 of 40 pairs (100 %) lose the thinking of the better answer and of the worse answer: "
                                      "the chat template takes thinking out. The model does not learn it.")
    assert found["alike"][:2] == ("bad", 16) and "the chat template writes both answers alike" in found["alike"][2]
    assert "same-after-cut" not in found
    assert "begins every answer with “<think>\\n”" in found["begun"][2]


def test_an_answer_of_tool_calls_alone_is_missed_in_the_rendered_text_of_a_template_that_knows_none():
    found = examined(settings("tool_call_against_text"))
    assert found["empty-answer"][:2] == ("bad", 6) and "the chat template knows no tool calls" in found["empty-answer"][2]
    assert found["lost-tools"][:2] == ("warn", 6) and found["lost-calls"][:2] == ("bad", 6)


@pytest.mark.fault("T88")
def test_a_run_stops_where_the_rendered_text_of_an_answer_is_empty_and_names_the_rows(tmp_path):
    run, how = trained(tmp_path, settings("tool_call_against_text"))
    assert how == "failed", log_of(run)
    reason = heard(run, events.Failed)[0].reason
    assert "6 of 6 pairs (100 %) have an answer of which the chat template writes nothing (the chat template knows no tool calls)" in reason
    assert "Rows: 1, 2, 3, 4, 5 …" in reason and not heard(run, events.Stepped)


def test_a_run_says_what_its_rendered_text_lacks_and_asks_as_its_pairs_did(tmp_path):
    asked = settings("thinking_answers", with_template(tmp_path / "base", THINKING_TAKEN_OUT), **{"training.max_steps": 1})
    run, how = trained(tmp_path / "runs", asked)
    assert how == "finished", log_of(run)
    noted = " ".join(event.text for event in heard(run, events.Noted))
    assert "40 of 40 pairs (100 %) lose the thinking of the better answer and of the worse answer" in noted
    assert "16 have answers that the chat template writes alike" in noted and "what the maximum length cuts off" not in noted
    assert heard(run, events.Planned)[0].pairs + heard(run, events.Planned)[0].held_out == 24
    duet, heard_prompts = Duet(run), []
    duet._speak = lambda prompts, *given, **more: heard_prompts.extend(prompts)
    duet.answer([[asks("What is 3 plus 4?")]] * 2, Sampling(), lambda texts: None)
    assert heard_prompts == ["<|User|>What is 3 plus 4?<|Assistant|>"] * 2


def test_without_unusable_rows_the_others_are_learned_from_and_their_rendered_text_is_whole(tmp_path):
    lines = (CASES / "tool_call_against_text.jsonl").read_text(encoding="utf-8").splitlines()[:2]
    lines += [json.dumps({"prompt": f"What is {number} and 1?", "chosen": f"{number + 1}.", "rejected": "No."}) for number in range(6)]
    (tmp_path / "mixed.jsonl").write_text("\n".join(lines), encoding="utf-8")
    seen = [one.pair for one in data.Stream(practice(**{"data.source": str(tmp_path / "mixed.jsonl")}).data)]
    encoded = tokens.tokenize(seen, load_tokenizer(ModelSettings()), 128, tmp_path / "cache")
    again = tokens.tokenize(seen, None or load_tokenizer(ModelSettings()), 128, tmp_path / "cache")  # from the file
    for one in (encoded, again):
        assert tokens.fitting(one, 128).left_out == {"have an answer of which the chat template writes nothing": [0, 1]}
        assert tokens.fitting(one, 128).places == list(range(2, 8))


LOST = {
    "text of a question that comes first": (Pair([asks("A?"), says("B."), asks("C?")], [says("D.")], [says("E.")]),
                                            "{% for turn in messages[-2:] %}{{ turn.content }}|{% endfor %}{% if add_generation_prompt %}>{% endif %}",
                                            {("prompt", "text")}),
    "thinking beside the content": (Pair([asks("A?")], [says("D.", reasoning_content="Because.")], [says("E.")]), None, {("chosen", "thinking")}),
    "a system turn": (Pair([{"role": "system", "content": "Be kind."}, asks("A?")], [says("D.")], [says("E.")]),
                      "{% for turn in messages if turn.role != 'system' %}{{ turn.content }}|{% endfor %}", {("prompt", "system")}),
    "one of two values": (Pair([asks("A?")], [says("", tool_calls=calls(city="Rome", day="Sunday"))], [says("E.")]),
                          "{% for turn in messages %}{{ turn.content }}{% for call in turn.tool_calls or [] %}"
                          "{{ call.function.name }}({{ call.function.arguments.city }}){% endfor %}|{% endfor %}", {("chosen", "calls")}),
    "all but the first line": (Pair([asks("A?")], [says("First.\nSecond.")], [says("E.")]),
                               "{% for turn in messages %}{{ turn.content.split('\n')[0] }}|{% endfor %}", {("chosen", "text")}),
}


@pytest.mark.fault("T88")
@pytest.mark.parametrize("what", LOST)
def test_rendered_text_that_lacks(what):
    pair, template, lost = LOST[what]
    tokenizer = load_tokenizer(ModelSettings())
    tokenizer.chat_template = template or tokenizer.chat_template
    [encoded] = tokens.encoded([pair], tokenizer)
    assert {which for which, bit in fidelity.BITS.items() if encoded.lost & bit} == lost
    assert not encoded.lost & fidelity.EMPTY


SPOKEN = [
    Pair([asks("Hi <b>there</b>?  two  spaces\n\n\tx")], [says("  Good\n\n* a\n* b \"q\" & <i>")], [says("Bad 'x'")]),
    Pair([asks("q"), says("one"), asks("two?")], [says("Gut, schön, 好")], [says("Bad {{ x }}")])]
VISION = ("idefics3", "smolvlm", "llava_next")


@pytest.mark.parametrize("path", [path for path in sorted(TEMPLATES.glob("*.jinja")) if not path.name.startswith(VISION)], ids=lambda path: path.stem)
def test_published_templates_lose_nothing_of_plain_pairs_in_the_rendered_text(path):
    tokenizer = load_tokenizer(ModelSettings())
    tokenizer.chat_template, tokenizer.bos_token = path.read_text(encoding="utf-8"), "<|im_start|>"
    assert [encoded.lost for encoded in tokens.encoded(SPOKEN, tokenizer)] == [0, 0]


@pytest.mark.parametrize(("template", "lost"), [("qwen3", {("prompt", "thinking")}), ("qwen3_training", set()),
                                                ("deepseek_r1_distill", {("chosen", "thinking"), ("rejected", "thinking"), ("prompt", "thinking")})])
def test_published_templates_that_take_thinking_out_are_found_by_their_rendered_text(template, lost):
    tokenizer = load_tokenizer(ModelSettings())
    tokenizer.chat_template, tokenizer.bos_token = (TEMPLATES / f"{template}.jinja").read_text(encoding="utf-8"), ""
    pair = Pair([asks("q"), says("<think>old</think>ans"), asks("two?")], [says("<think>\nhm\n</think>\n\nGood")], [says("<think>no</think>Bad")])
    [encoded] = tokens.encoded([pair], tokenizer)
    assert {which for which, bit in fidelity.BITS.items() if encoded.lost & bit} == lost


def test_two_answers_of_tool_calls_alone_are_told_apart_by_the_doctor_and_shown_as_rendered_text_is(tmp_path):
    seen = list(data.Stream(settings("tool_call_against_text").data))
    again = [one._replace(number=one.number + 6, pair=replace(one.pair, chosen=[says("", tool_calls=calls(city="Nowhere"))])) for one in seen]
    assert "duplicates" not in {finding.name for finding in doctor.examine([*seen, *again])}
    assert "→ weather {&quot;city&quot;: &quot;Rome&quot;}" in (html := numbered_pair({"number": 1, **seen[0].pair.row()}).replace("&#x27;", "'"))
    assert "tools: weather" in html


# --- tools ------------------------------------------------------------------------------------------------------------


def test_tools_are_given_to_the_template_and_stand_in_the_rendered_text(tmp_path):
    asked = settings("tool_call_against_text", with_template(tmp_path / "base", TOOLS_LISTED))
    stream = data.Stream(asked.data)
    seen = list(stream)
    assert "the tools that can be called from “tools”" in stream.in_words() and "Not used" not in stream.in_words()
    assert not examined(asked).keys() & {"lost-tools", "lost-calls", "empty-answer"}
    prompts, chosen, _ = texts.rendered([one.pair for one in seen], load_tokenizer(asked.model))
    assert "Tells the weather" in prompts[0] and '"arguments": {"city": "Rome"}' in chosen[0]  # values, and not JSON within JSON


def test_tools_in_other_shapes_are_read_and_others_are_told(tmp_path):
    bare = {"name": "weather", "description": "Tells the weather", "parameters": {"type": "object"}}
    for tools in ([bare], json.dumps([bare]), [json.dumps(WEATHER)], [WEATHER, {"type": "function", "function": {"name": "other"}}]):
        row = {"prompt": "Warm?", "chosen": "Yes.", "rejected": "No.", "tools": tools}
        (tmp_path / "pairs.jsonl").write_text(f"{json.dumps(row)}\n" * 2, encoding="utf-8")
        pair = next(iter(data.Stream(practice(**{"data.source": str(tmp_path / "pairs.jsonl")}).data))).pair
        assert pair.tools[0]["function"]["name"] == "weather" and pair.tools[0]["type"] == "function"


def test_tools_travel_with_their_pair_through_shelf_edits_files_and_the_token_view(tmp_path):
    asked = settings("tool_call_against_text", with_template(tmp_path / "base", TOOLS_LISTED), **{"data.edits": "swap 1"})
    reading = data.read(asked.data, folder=tmp_path)
    assert all(pair.tools == [WEATHER] for pair in reading.pairs)
    data.write_pairs(tmp_path / "held_out.jsonl", list(reading.pairs))
    turns = Turns()
    lines = [json.dumps(seen.pair.row()) for seen in turns.seen_in(Seen(1, pair) for pair in reading.pairs)]
    write(tmp_path / "out.parquet", lines, turns)
    for file in ("held_out.jsonl", "out.parquet"):
        again = [seen.pair for seen in data.Stream(practice(**{"data.source": str(tmp_path / file)}).data)]
        assert again == list(reading.pairs)
    told = look({"settings": asked.model_dump(), "pair": reading.pairs[0].row()})
    assert "weather" in "".join(told["chosen"][: told["prompt"]])


def test_prompts_of_chat_and_samples_ask_with_the_tools_of_the_pairs_in_the_rendered_text(tmp_path):
    asked = settings("tool_call_against_text", with_template(tmp_path / "base", TOOLS_LISTED))
    run = runs.create(tmp_path / "runs", asked)
    tokenizer = load_tokenizer(asked.model)
    pairs = [seen.pair for seen in data.Stream(asked.data)]
    tokens.tokenize(pairs, tokenizer, 128, tmp_path / "cache").asking.save(run.folder)
    assert Asking.load(run.folder).tools == [WEATHER] and "All pairs list the same 1 tool" in Asking.load(run.folder).in_words()
    assert "Tells the weather" in Asker(run, tokenizer).prompt([asks("Anything else?")])
    other = {"type": "function", "function": {"name": "clock", "description": "Tells the time"}}
    data.write_pairs(run.held_out, [Pair([asks("How late?")], [says("Six.")], [says("No.")], [other])])
    assert "Tells the time" in (text := Asker(run, tokenizer).prompt([asks("How late?")])) and "Tells the weather" not in text


def test_a_template_that_wants_arguments_as_text_gets_them_so_in_the_rendered_text():
    tokenizer = load_tokenizer(ModelSettings())
    tokenizer.chat_template = "{% for turn in messages %}{{ turn.content }}{% for call in turn.tool_calls or [] %}{{ 'CALL ' + call.function.arguments }}{% endfor %}{% endfor %}"
    assert render(tokenizer, [asks("Warm?"), says("", tool_calls=calls(city="Rome"))]) == 'Warm?CALL {"city": "Rome"}'
