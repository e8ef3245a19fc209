"""The chat: two candidates side by side from one base, in a process that comes with a question and goes with the page."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from itertools import pairwise

import psutil
import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, GenerationConfig, Qwen2Config, Qwen2ForCausalLM

from studio import events, jobs, runs
from studio.candidates import BASE, Candidate
from studio.chat import LIMITS, Answers, Chat, Sampling
from studio.engine import checkpoints, model
from studio.engine.duet import ADAPTERS, NO_ADAPTER, Answer, Duet, Transcript
from studio.errors import SettingsError, StudioError
from studio.runs import Run
from tests.jobs_at_work import practice, until
from tests.tiny_run import SENTENCES, tiny_base, tuned_run

SHORT, LONG = ([{"role": "user", "content": text}] for text in (SENTENCES[2], " ".join(SENTENCES)))
GREEDY = Sampling(temperature=0, max_new_tokens=16)
ENDLESS = Sampling(temperature=0, max_new_tokens=1900)
SECRETS = {"token": "hf_secretsecret"}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Here and in the processes: for two layers of 64, several threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def run(base, tmp_path_factory):
    return tuned_run(tmp_path_factory.mktemp("runs"), base)


@pytest.fixture(scope="module")
def duet(run):
    """The two in this process, where no page and no pipe is in between."""
    return Duet(run)


@pytest.fixture(scope="module")
def chat():
    with closing(Chat()) as chat:
        yield chat


def told(duet: Duet, first, second, sampling=GREEDY) -> list[list[str]]:
    """All that the duet tells while it answers."""
    lines = []
    duet.answer([first, second], sampling, lines.append)
    return lines


def alone(run: Run, talk, candidate: Candidate) -> str:
    """The same answer by the usual means: a model of its own, one talk, no padding, one adapter or none."""
    tokenizer = AutoTokenizer.from_pretrained(run.adapter)
    speaker = model.load_base(run.settings.model, tokenizer)
    speaker.generation_config = GenerationConfig(eos_token_id=sorted({0, tokenizer.eos_token_id}), pad_token_id=tokenizer.pad_token_id)
    if candidate.run:
        speaker = PeftModel.from_pretrained(speaker, runs.find(run.folder.parent, candidate.run).adapter)
    if candidate.step is not None:
        weights = load_file(run.checkpoints / f"step-{candidate.step:08d}" / "weights.safetensors")
        assert not speaker.load_state_dict(weights, strict=False).unexpected_keys
    return greedy(speaker.eval(), tokenizer, talk)


def greedy(speaker, tokenizer, talk) -> str:
    text = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    written = speaker.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False,
                               max_new_tokens=GREEDY.max_new_tokens)
    return tokenizer.decode(written[0, ids.shape[1]:], skip_special_tokens=True)


def pair_of(run: Run) -> tuple[Candidate, Candidate]:
    return BASE, Candidate(run.name)


def ask(chat: Chat, run, first=SHORT, second=SHORT, sampling=GREEDY, secrets=None):
    return chat.ask(run, pair_of(run), (first, second), sampling, secrets)


def last(chat: Chat, run, first=SHORT, second=SHORT, sampling=GREEDY) -> Answers:
    return list(ask(chat, run, first, second, sampling, SECRETS))[-1]


def logged(run) -> str:
    return (run.folder / "chat.log").read_text(encoding="utf-8", errors="replace")


# --- who says what ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("left", "right"), [(SHORT, SHORT), (SHORT, LONG), (LONG, SHORT)], ids=["even", "short", "long"])
def test_each_row_is_what_that_candidate_says_alone(duet, run, left, right):
    assert told(duet, left, right)[-1] == [alone(run, left, BASE), alone(run, right, Candidate(run.name))]
    assert duet.in_turn_because == ""


def test_the_adapter_changes_what_is_said(duet):
    base, tuned = told(duet, SHORT, SHORT)[-1]
    assert base and tuned and base != tuned


def test_the_template_is_the_one_that_was_trained(duet, run):
    assert duet.tokenizer.chat_template == (run.adapter / "chat_template.jinja").read_text(encoding="utf-8")


def test_a_base_in_4_bits_speaks_as_it_was_trained(base, tmp_path):
    run = tuned_run(tmp_path, base, **{"model.quantization": "nf4"})
    duet = Duet(run)
    assert duet.model.get_base_model().is_loaded_in_4bit and duet.in_turn_because == ""
    assert told(duet, SHORT, LONG)[-1] == [alone(run, SHORT, BASE), alone(run, LONG, Candidate(run.name))]


@torch.no_grad()
def test_a_base_in_8_bits_differs_by_its_rounding_only(base, tmp_path):
    duet = Duet(tuned_run(tmp_path, base, **{"model.quantization": "int8"}))
    assert duet.model.get_base_model().is_loaded_in_8bit and duet.in_turn_because == ""
    ids = duet.tokenizer([SENTENCES[0]] * 2, return_tensors="pt")["input_ids"]
    together = duet.model(ids, adapter_names=[NO_ADAPTER, ADAPTERS[1]]).logits.log_softmax(-1)
    tuned = duet.model(ids[:1]).logits.log_softmax(-1)
    with duet.model.disable_adapter():
        plain = duet.model(ids[:1]).logits.log_softmax(-1)
    torch.testing.assert_close(together, torch.cat([plain, tuned]), atol=0.2, rtol=0)
    assert (plain - tuned).abs().max() > 2


def test_trained_biases_are_taken_back_for_the_base(base, tmp_path):
    run = run_with_trained_biases(tmp_path, base)
    duet = Duet(run)
    said = told(duet, SHORT, SHORT)[-1]
    assert said == [alone(run, SHORT, BASE), alone(run, SHORT, Candidate(run.name))] and said[0] != said[1]
    assert told(duet, SHORT, SHORT)[-1] == said, "the biases were not put back"
    assert duet.in_turn_because == "The biases were trained too."


def run_with_trained_biases(root, base):
    shutil.copytree(base, root / "qwen", ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    torch.manual_seed(0)
    Qwen2ForCausalLM(Qwen2Config(
        vocab_size=300, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.2, eos_token_id=0, pad_token_id=0)).save_pretrained(root / "qwen")
    run = tuned_run(root / "runs", root / "qwen", **{"adapter.bias": "lora_only"})
    weights = load_file(run.adapter / "adapter_model.safetensors")
    assert any(name.endswith(".bias") for name in weights)
    save_file({name: weight + name.endswith(".bias") for name, weight in weights.items()},
              run.adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    return run


def test_what_cannot_share_a_batch_speaks_in_turn(base, tmp_path, monkeypatch):
    monkeypatch.setattr(model, "lora_config", lambda settings: LoraConfig(
        r=4, target_modules="all-linear", use_dora=True, task_type="CAUSAL_LM"))
    run = tuned_run(tmp_path, base)
    duet = Duet(run)
    assert "DoRA" in duet.in_turn_because
    lines = told(duet, SHORT, LONG)
    assert lines[-1] == [alone(run, SHORT, BASE), alone(run, LONG, Candidate(run.name))]
    assert lines[0][1] == ""


# --- any two of one base ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rivals(base, tmp_path_factory):
    """Two runs of one room on the same base, the second with another rank and with checkpoints."""
    root = tmp_path_factory.mktemp("rivals")
    first, second = tuned_run(root, base), tuned_run(root, base, **{"adapter.rank": 8})
    for step, scale in ((1, 0.0), (2, 3.0)):
        tokenizer = AutoTokenizer.from_pretrained(second.adapter)
        trained = PeftModel.from_pretrained(model.load_base(second.settings.model, tokenizer), second.adapter, is_trainable=True)
        weights = {name: weight * scale for name, weight in trained.named_parameters() if weight.requires_grad}
        checkpoints.write(second.checkpoints, step, {}, {"weights": weights}, {})
    return first, second


PAIRS = {"two runs": (Candidate("first"), Candidate("second")), "two checkpoints": (Candidate("second", 1), Candidate("second", 2)),
         "run and its checkpoint": (Candidate("second"), Candidate("second", 2)), "tuned before base": (Candidate("first"), BASE)}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=list(PAIRS))
def test_any_two_on_one_base_say_what_each_says_alone(rivals, pair):
    names = dict(zip(("first", "second"), (run.name for run in rivals), strict=True))
    pair = tuple(replace(candidate, run=names.get(candidate.run, "")) for candidate in pair)
    duet = Duet(rivals[0])
    for turn in (pair, (BASE, Candidate(names["first"])), pair[::-1]):  # and what one pair leaves behind does not tinge the next
        duet.seat(turn)
        assert duet.in_turn_because == ""
        assert told(duet, SHORT, LONG)[-1] == [alone(rivals[1], talk, one) for talk, one in zip((SHORT, LONG), turn, strict=True)]


def test_a_checkpoint_of_nothing_learned_speaks_as_the_base(rivals):
    duet = Duet(rivals[1])
    duet.seat((BASE, Candidate(rivals[1].name, 1)))
    base, untaught = told(duet, SHORT, SHORT)[-1]
    assert base == untaught


def test_runs_that_trained_biases_are_compared_too_in_turn(base, tmp_path):
    first = run_with_trained_biases(tmp_path, base)
    second = tuned_run(tmp_path / "runs", tmp_path / "qwen", **{"adapter.bias": "none"})
    duet = Duet(first)
    duet.seat((Candidate(first.name), Candidate(second.name)))
    assert duet.in_turn_because
    assert told(duet, SHORT, SHORT)[-1] == [alone(first, SHORT, Candidate(run.name)) for run in (first, second)]


def other_weights(root, base):
    shutil.copytree(base, root / "other")
    weights = load_file(root / "other" / "model.safetensors")
    save_file({name: weight + 1 for name, weight in weights.items()}, root / "other" / "model.safetensors", metadata={"format": "pt"})
    return {"model.name": str(root / "other")}


STRANGERS = {"weights": (other_weights, "other weights than this run's base. Choose a run that was trained on this one"),
             "template": (lambda root, base: {"template": True}, "another chat template than .* Choose a run with the same template")}


@pytest.mark.parametrize(("make", "told"), STRANGERS.values(), ids=list(STRANGERS))
def test_a_run_with_another_base_or_template_is_refused_beside_this_one(base, tmp_path, make, told):
    run, changes = tuned_run(tmp_path, base), make(tmp_path, base)
    stranger = tuned_run(tmp_path, base, **{name: value for name, value in changes.items() if "." in name})
    if "template" in changes:
        template = stranger.adapter / "chat_template.jinja"
        template.write_text(template.read_text(encoding="utf-8") + " ", encoding="utf-8")
        (stranger.folder / events.FILE).unlink()  # which says which template it was trained with
    duet = Duet(run)
    with pytest.raises(StudioError, match=told):
        duet.seat((BASE, Candidate(stranger.name)))


def test_who_is_not_there_is_told_and_the_next_question_is_answered(rivals):
    first, second = rivals
    with closing(Chat()) as chat:
        with pytest.raises(StudioError, match=r"step-00000007 is not whole: manifest.json is missing. Choose another step"):
            list(chat.ask(first, (BASE, Candidate(second.name, 7)), (SHORT, SHORT), GREEDY))
        assert last(chat, first) == Answers(*(alone(first, SHORT, one) for one in pair_of(first)), together=True, done=True)


@pytest.mark.parametrize("nobody", ["nobody", "..", "../rivals", ".hidden"])
def test_only_runs_of_the_same_room_can_sit_down(rivals, nobody):
    with pytest.raises(StudioError, match="There is no run"):
        Duet(rivals[0]).seat((BASE, Candidate(nobody)))


# --- how it is said --------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_answers(duet):
    drawn = Sampling(temperature=1, max_new_tokens=16, seed=7)
    first = told(duet, SHORT, LONG, drawn)[-1]
    assert told(duet, SHORT, LONG, drawn)[-1] == first != told(duet, SHORT, LONG, replace(drawn, seed=8))[-1]


def test_without_a_seed_every_answer_is_drawn_anew(duet):
    drawn = Sampling(temperature=1, max_new_tokens=16)
    assert told(duet, SHORT, SHORT, drawn)[-1] != told(duet, SHORT, SHORT, drawn)[-1]


def test_padding_is_not_penalized_as_if_it_had_been_said(duet):
    penalized = Sampling(temperature=0, max_new_tokens=24, repetition_penalty=1.5)
    beside_a_long_one = told(duet, SHORT, LONG, penalized)[-1][0]
    assert beside_a_long_one == told(duet, SHORT, SHORT, penalized)[-1][0]
    assert beside_a_long_one != told(duet, SHORT, LONG)[-1][0]


def test_a_character_waits_until_it_is_whole(duet):
    tokens = duet.tokenizer("é🙂", add_special_tokens=False)["input_ids"]
    grown = [Answer(tokens[:n]).text(duet.tokenizer) for n in range(len(tokens) + 1)]
    assert len(tokens) == 6 and list(dict.fromkeys(grown)) == ["", "é", "é🙂"]
    assert Answer(tokens[:3], ended=True).text(duet.tokenizer) == "é\ufffd", "at its end an answer hides nothing"


def test_a_side_that_has_ended_says_nothing_while_the_other_goes_on(duet):
    transcript = Transcript(duet.tokenizer, {5}, lambda texts: None)
    for tokens in ([[1, 2], [3, 4]], [7, 8], [5, 9], [0, 10]):
        transcript.put(torch.tensor(tokens))
    assert [answer.tokens for answer in transcript.answers] == [[7], [8, 9, 10]]


def test_a_talk_longer_than_the_model_is_refused_in_words(duet):
    with pytest.raises(StudioError, match=r"exceed the 2048 .*Start a new chat"):
        told(duet, SHORT, LONG, Sampling(max_new_tokens=2040))


def test_a_talk_that_the_template_refuses_is_refused_in_words(duet, monkeypatch):
    monkeypatch.setattr(duet.tokenizer, "chat_template", "{{ raise_exception('No system role here') }}")
    with pytest.raises(StudioError, match="No system role here. Start a new chat"):
        told(duet, SHORT, SHORT)


def test_a_system_prompt_that_the_template_leaves_out_is_told(duet, monkeypatch):
    asked, notes = [{"role": "system", "content": " Be brief.\n"}, *SHORT], []
    duet.answer([asked, asked], GREEDY, lambda texts: None, note=notes.append)
    assert notes == []
    trimming = "{% for m in messages %}{{ m.role }}: {{ m.content | trim }}\n{% endfor %}"
    monkeypatch.setattr(duet.tokenizer, "chat_template", trimming)
    duet.answer([asked, asked], GREEDY, lambda texts: None, note=notes.append)
    assert notes == [], "blanks around it may go"
    monkeypatch.setattr(duet.tokenizer, "chat_template", trimming.replace("messages", "messages if m.role != 'system'"))
    duet.answer([asked, asked], GREEDY, lambda texts: None, note=notes.append)
    assert notes == ["This model's chat template leaves out the system prompt: both answer as if it were not there."]


def test_an_answer_is_handed_on_as_it_was_written(duet, monkeypatch):
    text = "  if x :\n\treturn 1 , 2 !\n\n"
    tokens = duet.tokenizer(text, add_special_tokens=False)["input_ids"]
    monkeypatch.setattr(duet.tokenizer, "clean_up_tokenization_spaces", True)
    assert Answer(tokens, ended=True).text(duet.tokenizer) == text


@pytest.mark.parametrize(("chosen", "complaint"), [
    ({"temperature": -1}, "out of range"), ({"temperature": float("nan")}, "out of range"), ({"top_p": 0}, "from 0.01 to 1"),
    ({"max_new_tokens": None}, "Enter a value"), ({"max_new_tokens": 2.5}, "whole number"), ({"seed": "x"}, "Enter a number")])
def test_sampling_out_of_its_limits_is_refused_by_name(chosen, complaint):
    with pytest.raises(SettingsError) as refused:
        Sampling(**chosen)
    assert list(refused.value.problems) == list(chosen) and complaint in str(refused.value)


def test_sampling_takes_what_a_form_hands_over():
    taken = Sampling(temperature=1, top_p=1, max_new_tokens=200.0, repetition_penalty=1, seed=None)
    assert repr(taken) == "Sampling(temperature=1.0, top_p=1.0, max_new_tokens=200, repetition_penalty=1.0, seed=None)"


@pytest.mark.parametrize("name", ["temperature", "top_p", "repetition_penalty", "max_new_tokens"])
@pytest.mark.parametrize("end", [0, 1])
def test_at_both_ends_of_every_limit_there_is_an_answer(duet, name, end):
    chosen = {"temperature": 1, "max_new_tokens": 4} | {name: LIMITS[name][end]}
    if chosen["max_new_tokens"] < duet.model.config.max_position_embeddings:
        assert told(duet, SHORT, LONG, Sampling(**chosen))


# --- the process, from the page --------------------------------------------------------------------------------------


def test_answers_stream_side_by_side_as_growing_prefixes(chat, run, duet):
    growing = list(ask(chat, run, SHORT, LONG, Sampling(temperature=0, max_new_tokens=64)))
    for before, after in pairwise(growing):
        assert after.first.startswith(before.first) and after.second.startswith(before.second)
    assert any(answers.first and answers.second and not answers.done for answers in growing)
    assert len(set(growing)) > 3
    assert [answers.done for answers in growing] == [False] * (len(growing) - 1) + [True]
    assert chat.ready.device == duet.device and growing[-1].together


def test_each_keeps_a_talk_of_its_own(chat, run):
    said = last(chat, run)
    again = {"role": "user", "content": SENTENCES[0]}
    talks = [[*SHORT, {"role": "assistant", "content": text}, again] for text in (said.first, said.second)]
    assert last(chat, run, *talks) == Answers(*(alone(run, *one) for one in zip(talks, pair_of(run), strict=True)), together=True, done=True)


def test_temperature_zero_says_the_same_every_time(chat, run):
    assert last(chat, run) == last(chat, run)


def test_an_answer_that_is_left_ends_after_its_present_token(chat, run):
    pid = leave(chat, run)
    began = time.monotonic()
    assert last(chat, run).done and time.monotonic() - began < 5
    assert chat.pid == pid


def leave(chat: Chat, run) -> int:
    """Ask for an endless answer and leave while it grows."""
    answers = ask(chat, run, sampling=ENDLESS)
    next(said for said in answers if said.first)
    answers.close()
    return chat.pid


def test_questions_at_the_same_time_wait_for_their_turn(chat, run):
    expected = [last(chat, run, SHORT, SHORT), last(chat, run, LONG, LONG)]
    with ThreadPoolExecutor() as pages:
        assert list(pages.map(lambda talk: last(chat, run, talk, talk), [SHORT, LONG])) == expected


def test_a_refused_question_leaves_the_process_as_it_was(chat, run):
    pid = chat.pid
    with pytest.raises(StudioError, match="Start a new chat"):
        last(chat, run, sampling=Sampling(max_new_tokens=5000))
    assert last(chat, run).done and chat.pid == pid


def test_a_process_killed_while_it_answers_says_so_and_starts_anew(chat, run):
    expected, pid = last(chat, run), chat.pid
    with pytest.raises(StudioError, match=r"was killed.* ask again"):
        for answers in ask(chat, run, sampling=ENDLESS):
            if answers.first:
                os.kill(pid, signal.SIGKILL)
    assert chat.pid is None and chat.ready is None
    assert last(chat, run) == expected and chat.pid != pid


@pytest.mark.fault("T64")
def test_the_token_is_nowhere_to_be_read(chat, run):
    last(chat, run)
    process = psutil.Process(chat.pid)
    assert SECRETS["token"] not in f"{process.cmdline()} {process.environ()} {logged(run)}"


def test_another_run_ends_the_process_of_the_one_before(chat, run, tmp_path):
    last(chat, run)
    first = psutil.Process(chat.pid)
    with pytest.raises(StudioError, match="adapter_model.safetensors is damaged"):
        last(chat, damaged(run, tmp_path))
    assert not first.is_running()


def damaged(run, root) -> Run:
    """A run whose adapter cannot be read."""
    copy = runs.create(root, run.settings)
    shutil.copytree(run.adapter, copy.adapter)
    (copy.adapter / "adapter_model.safetensors").write_bytes(b"torn")
    return copy


@pytest.mark.slow
def test_a_process_that_nobody_asks_ends_by_itself_and_the_next_question_starts_another(run):
    with closing(Chat(idle_seconds=0.2)) as chat:
        first, pid = last(chat, run), chat.pid
        until(lambda: not psutil.pid_exists(pid), 10)
        assert chat.ready is None
        assert last(chat, run) == first and chat.pid != pid


def test_a_run_without_an_adapter_is_refused_before_anything_starts(chat, tmp_path):
    untrained = runs.create(tmp_path, practice())
    with pytest.raises(StudioError, match="has no adapter yet. Let it finish"):
        last(chat, untrained)
    assert not (untrained.folder / "chat.log").exists()


def test_a_chat_that_is_closed_ends_its_process_and_the_question_under_way(run):
    chat = Chat()
    answers = ask(chat, run)
    assert next(answers) == Answers(), "while it loads, whoever waits is asked whether they are still there"
    process = psutil.Process(chat.pid)
    chat.close()
    with pytest.raises(StudioError, match="was closed before the answer was complete"):
        list(answers)
    assert not process.is_running() and chat.pid is None


# --- the process, by its protocol ------------------------------------------------------------------------------------


@contextmanager
def talking_to(folder):
    """The process as somebody else would start it: its pipes, and a function that reads the next line."""
    process = subprocess.Popen([sys.executable, "-m", "studio.engine.chat", str(folder)], cwd=jobs.PROJECT, text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with process.stdout:
        yield process, lambda: json.loads(process.stdout.readline())
        process.kill()
        process.wait()


def tell(process, message) -> None:
    process.stdin.write(json.dumps(message) + "\n")
    process.stdin.flush()


def question(number: int, name: str, sampling: Sampling) -> dict:
    return {"id": number, "pair": ["base", f"{name}@last"], "talks": [SHORT, SHORT], "sampling": asdict(sampling)}


def test_the_protocol_is_as_its_description_says(run):
    with talking_to(run.folder) as (process, hear):
        tell(process, {})
        assert hear()["ready"] | {"seconds": 0} == {"device": "cpu", "seconds": 0}
        tell(process, question(1, run.name, ENDLESS))
        assert hear() == {"id": 1, "together": True}
        assert hear().keys() == {"id", "texts"}
        tell(process, {"cancel": 1})
        until(lambda: hear() == {"id": 1, "done": True}, 5)
        tell(process, question(2, run.name, Sampling(max_new_tokens=5000)))
        assert hear() == {"id": 2, "together": True}
        assert hear().keys() == {"id", "error"}
        tell(process, question(3, run.name, ENDLESS))
        assert hear()["id"] == 3
        process.stdin.close()  # as the system does for a page that is gone
        assert process.wait(5) == 0


def test_the_process_ends_with_its_input_while_it_still_loads(run):
    with talking_to(run.folder) as (process, _):
        process.stdin.close()
        assert process.wait(5) == 0


def test_what_is_no_run_is_a_sentence(tmp_path):
    with talking_to(tmp_path) as (process, hear):
        tell(process, {})
        assert hear()["error"].startswith(f"There is no adapter in {tmp_path}. Choose a run")
        assert process.wait(5) == 1


def test_what_libraries_print_stays_out_of_the_protocol():
    program = ("import os; from studio.engine.chat import Wire; wire = Wire(); print('noise', flush=True); "
               "os.write(1, b'noise'); wire.say(done=True)")
    done = subprocess.run([sys.executable, "-c", program], cwd=jobs.PROJECT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"done": True} and done.stderr.count("noise") == 2
