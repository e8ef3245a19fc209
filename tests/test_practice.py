"""The practice run, measured as a newcomer would meet it: the real run, then answers to what no pair contains."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from peft import PeftModel
from rich.console import Console

from studio import events, jobs, pace, practice, runs, terminal
from studio.engine import evaluate, model, tokens
from studio.engine.orpo.scoring import Scorer
from studio.engine.vocabulary import load_tokenizer
from studio.fit import changed, fit
from studio.preferences.pairs import Pair
from studio.settings import Settings
from studio.shape import Shapes
from studio.summary import Summary

pytestmark = pytest.mark.long
QUESTIONS, HELD_OUT_PAIRS, SEED = 400, 300, 2026


@dataclass(frozen=True)
class Measured:
    """Shares of sampled answers, and of held-out pairs told apart."""

    friendly: float
    curt: float
    right: float
    preference: float


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """What `make practice` does, and what it printed."""
    root = tmp_path_factory.mktemp("practice")
    done = subprocess.run([sys.executable, "-m", "studio.terminal", "--runs", str(root)], cwd=jobs.PROJECT,
                          env=os.environ | {"COLUMNS": "120"}, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return runs.listed(root)[0], done.stdout


@pytest.fixture(scope="module")
def measured(finished):
    """Base and tuned on the same questions, sampled at temperature 0.7 and top-p 0.9."""
    run, _ = finished
    settings = run.settings
    tokenizer = load_tokenizer(settings.model)
    tuned = PeftModel.from_pretrained(model.load_base(settings.model, tokenizer), run.adapter).eval()
    torch.manual_seed(SEED)
    with tuned.disable_adapter():
        base = measure(tuned, tokenizer, settings, base=True)
    return base, measure(tuned, tokenizer, settings)


@torch.no_grad()
def measure(tuned, tokenizer, settings, base=False):
    questions = practice.held_out_questions(QUESTIONS, SEED)
    answers = []
    tokenizer.padding_side = "left"
    for start in range(0, QUESTIONS, 50):
        inputs = tokenizer.apply_chat_template([question.prompt for question in questions[start:start + 50]], padding=True,
                                               add_generation_prompt=True, return_tensors="pt", return_dict=True)
        said = tuned.generate(**inputs, do_sample=True, temperature=0.7, top_p=0.9, max_new_tokens=96)
        answers += tokenizer.batch_decode(said[:, inputs["input_ids"].shape[1]:], skip_special_tokens=True)
    tokenizer.padding_side = "right"
    pairs = [Pair(**row) for row in practice.held_out_pairs(HELD_OUT_PAIRS, SEED)]
    rows = tokens.tokenize(pairs, tokenizer, settings.training.max_length)
    scorer = Scorer(tuned, tokenizer.pad_token_id).choose(rows)
    told_apart = evaluate.measure(scorer, rows, beta=settings.training.beta, batch_size=16, base=base).metrics["rewards/accuracies"]
    manners = [practice.manner(answer) for answer in answers]
    right = sum(practice.is_right(question.fact, answer) for question, answer in zip(questions, answers, strict=True))
    return Measured(manners.count("friendly") / QUESTIONS, manners.count("curt") / QUESTIONS, right / QUESTIONS, told_apart)


def test_the_terminal_does_not_wait_for_a_run_whose_folder_is_gone(tmp_path):
    run = runs.create(tmp_path, Settings())
    shutil.rmtree(run.folder)
    assert terminal.follow(run, Console(quiet=True))[0] is None


def test_the_terminal_reports_losses_margins_preference_and_three_questions(finished):
    _, printed = finished
    for told in ("loss (training)", "reward margin (held out)", "prefers the better answer (held out, n=", "before, and after",
                 "First step after"):
        assert told.split(",")[0] in printed
    assert printed.count("├") >= 2


def test_its_peak_was_estimated_and_the_next_run_knows_its_speed(finished):
    run, _ = finished
    estimate = fit(run.settings, Shapes().find(run.settings.model), 16 * 10**9, "cpu").need.total
    seen = Summary(events.read(run.folder / events.FILE))
    print(f"estimated {estimate / 1e6:.0f} MB, measured {seen.memory / 1e6:.0f} MB")
    assert estimate == pytest.approx(seen.memory, rel=0.15)
    def known(settings):
        return pace.earlier_seconds(run.folder.parent, settings, "cpu", events.read)
    assert known(run.settings) == pytest.approx(seen.seconds_a_step / run.settings.training.batch_size / run.settings.training.accumulation)
    assert known(changed(run.settings, training__max_length=64)) is None


def test_the_base_answers_about_equally_in_both_manners(measured):
    base, _ = measured
    print(base)
    assert 0.35 <= base.friendly <= 0.65 and 0.35 <= base.curt <= 0.65


def test_the_tuned_answers_in_the_preferred_manner_and_still_knows_its_facts(measured):
    base, tuned = measured
    print(tuned)
    assert tuned.friendly >= 0.95
    assert tuned.right >= 0.95 and tuned.right >= base.right
    assert tuned.preference >= 0.98


def test_the_pairs_that_ship_are_the_pairs_that_the_script_makes():
    shipped = [json.loads(line) for line in practice.PAIRS.read_text(encoding="utf-8").splitlines()]
    assert len(shipped) >= 1500
    assert shipped == json.loads(json.dumps(practice.pairs(len(shipped))))


def test_no_held_out_question_is_in_the_pairs():
    shipped = {json.loads(line)["prompt"][-1]["content"] for line in practice.PAIRS.read_text(encoding="utf-8").splitlines()}
    assert not shipped & {question.prompt[-1]["content"] for question in practice.held_out_questions(QUESTIONS, SEED)}


def test_the_practice_model_is_small_enough_to_ship_and_holds_no_pickle():
    files = [file for file in practice.MODEL.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 12_000_000
    assert {file.suffix for file in files} <= {".json", ".safetensors", ".jinja"}


@pytest.mark.parametrize(("answer", "is_"), [("Of course! It is Paris. Have a lovely day!", "friendly"), ("Paris. So what?", "curt")])
def test_the_judge_hears_the_manner(answer, is_):
    assert practice.manner(answer) == is_
