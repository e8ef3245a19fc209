"""A run fits its settings to its size, says so before it starts, and keeps the rules that it began with."""

import json
from dataclasses import fields
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from studio import begun, event_fields, events, jobs, plan, practice, runs
from studio.engine import data, drawing
from studio.errors import StudioError
from studio.events import Planned, Started
from studio.jobs import Queue
from studio.plan import held_out_for, warmup_for
from studio.settings import Settings
from studio.ui.fit_card import shown
from studio.ui.studio import Studio
from tests import jobs_at_work
from tests.jobs_at_work import ended, heard, log_of


def first_pairs(folder, count: int, skip: tuple[int, ...] = ()) -> str:
    """A file with the first practice pairs, some lines left out."""
    lines = practice.PAIRS.read_text(encoding="utf-8").splitlines(keepends=True)[:count]
    path = folder / f"{count}-without-{len(skip)}.jsonl"
    path.write_text("".join(line for at, line in enumerate(lines) if at not in skip), encoding="utf-8")
    return str(path)


# --- fitted to the size -----------------------------------------------------------------------------------------------


@pytest.mark.fault("T88")
@pytest.mark.parametrize(("pairs", "steps", "warmup"), [(3, 1, 0), (40, 5, 1), (400, 50, 5)])
def test_with_all_defaults_a_run_reaches_its_learning_rate_however_few_pairs_there_are(pairs, steps, warmup):
    training = Settings().training
    assert plan.steps_for(training, pairs) == steps and warmup_for(training, steps) == warmup < steps


def test_a_warm_up_means_what_it_meant_unless_it_takes_more_than_half_of_the_run():
    for wanted, steps, found in ((10, 124, 10), (10, 20, 10), (10, 19, 2), (10, 5, 1), (10, 1, 0), (0.1, 124, 13), (0.1, 4, 0), (0.5, 6, 3),
                                 (0, 50, 0), (1, 2, 1), (1, 1, 0)):
        training = Settings.from_form(**{"training.warmup_steps": wanted}).training
        assert warmup_for(training, steps) == found, (wanted, steps)
    assert warmup_for(Settings.from_form(**{"training.schedule": "constant"}).training, 10) == 0


@pytest.mark.parametrize(("total", "share", "held_out"), [
    (3, 0.05, 0), (9, 0.05, 0), (10, 0.05, 2), (40, 0.05, 8), (100, 0.05, 10), (1000, 0.05, 50), (1000, 0.01, 10), (40, 0.2, 8), (100, 0, 0),
    (4, 0.5, 2)])
def test_as_many_pairs_are_held_out_as_can_measure_something(total, share, held_out):
    assert held_out_for(total, share) == held_out


def remarks(pairs, held_out, **changes) -> str:
    return " ".join(plan.plan(Settings.from_form(**changes), pairs, held_out).remarks)


def test_whatever_is_fitted_or_makes_no_sense_is_said():
    assert "The warm-up is shortened from 10 steps to 1: the run takes 5 steps" in remarks(40, 8, **{"training.warmup_steps": 10})
    assert "The warm-up of 10 steps is left out: the run takes 1 step, and the learning rate would never rise above zero." in (
        remarks(3, 0, **{"training.warmup_steps": 10}))
    assert "No pair is held out, so nothing measures what the run has learned: 3 pairs are too few to spare any." in remarks(3, 0)
    assert "One pair is held out, and one pair measures nothing" in remarks(99, 1)
    assert "8 of 40 pairs are held out instead of 2, which is the share of 0.05" in remarks(32, 8)
    assert "Only 4 pairs are held out" in remarks(300, 4)
    assert "The run takes only 1 step for 3 pairs, 8 to a step" in remarks(3, 0)
    assert "No checkpoint is due: one is taken every 500 steps and the run takes 119" in remarks(950, 50, **{"training.checkpoint_every": 500})
    assert remarks(950, 50) == remarks(1900, 100, **{"training.warmup_steps": 10}) == ""


def test_the_card_above_start_says_it_before_the_run_does(tmp_path):
    studio = Studio(tmp_path / "runs", Queue(tmp_path / "runs"))
    asked = Settings.from_form(**{"data.source": first_pairs(tmp_path, 3), "training.warmup_steps": 10})
    told = shown(studio, asked.to_form())
    for words in plan.plan(asked, 3, 0).remarks:
        assert words in told
    assert "warm-up" in told and "No pair is held out" in told and "only 1 step" in told


def test_three_pairs_with_all_defaults_change_the_adapter_and_the_run_says_what_it_fitted(tmp_path):
    run = Queue(tmp_path / "runs", poll_seconds=0.1).open().add(Settings.from_form(**{"data.source": first_pairs(tmp_path, 3)}))
    assert ended(run) == "finished", log_of(run)
    assert [step.metrics["learning_rate"] for step in heard(run, events.Stepped)] == [8e-6]
    assert any(weight.any() for name, weight in load_file(run.adapter / "adapter_model.safetensors").items() if "lora_B" in name)
    noted = [note.text for note in heard(run, events.Noted)]
    assert set(plan.plan(run.settings, 3, 0).remarks) <= set(noted)
    planned = heard(run, events.Planned)[0]
    assert (planned.rules, planned.held_out) == (plan.RULES, 0) and datetime.fromisoformat(planned.moment)
    asked = {sample.prompt for sample in heard(run, events.Sampled)}  # no preset's questions: those of the data
    lines = Path(run.settings.data.source).read_text(encoding="utf-8").splitlines()
    assert asked == {json.loads(line)["prompt"][-1]["content"] for line in lines}


# --- which pairs are drawn --------------------------------------------------------------------------------------------


def split(source: str, rules: int = plan.RULES, **changes) -> tuple[list[str], list[str]]:
    """The pairs that are learned from and those that are held out, in their order."""
    asked = Settings.from_form(**{"data.source": source, "data.held_out": 0.1} | changes).data
    reading = data.read(asked, rules=rules)
    train, held_out = data.divided(reading, list(range(len(reading.found))), asked)
    return tuple([json.dumps(reading.pairs[place].row()) for place in places] for places in (train, held_out))


def test_leaving_rows_out_changes_nothing_about_which_others_are_drawn(tmp_path):
    """By a permutation of the rows' number half of the pairs stayed the same."""
    whole, without = first_pairs(tmp_path, 800), first_pairs(tmp_path, 800, skip=(3,))
    edited = {"data.edits": "drop 4"}
    (train, held_out), *others = (split(whole, **{"data.rows": 400}), split(whole, **{"data.rows": 400} | edited),
                                  split(without, **{"data.rows": 400}))
    for theirs, also in others:
        assert len(set(train) & set(theirs)) >= len(set(train)) - 1 and set(held_out) == set(also)
    shorter, _ = split(whole, **{"data.rows": 200})
    assert set(shorter) < set(train) | set(held_out)
    assert len(set(split(whole, **{"data.rows": 400, "data.seed": 7})[0]) & set(train)) < 240


def test_pairs_that_are_too_long_to_learn_from_change_nothing_about_the_others(tmp_path):
    asked = Settings.from_form(**{"data.source": first_pairs(tmp_path, 100), "data.held_out": 0.2}).data
    reading = data.read(asked)
    every = list(range(len(reading.found)))
    train, held_out = data.divided(reading, every, asked)
    some = [place for place in every if place % 3]
    assert data.divided(reading, some, asked) == ([place for place in train if place % 3], [place for place in held_out if place % 3])


def test_identical_pairs_are_never_on_both_sides(tmp_path):
    path = tmp_path / "twice.jsonl"
    path.write_text(practice.PAIRS.read_text(encoding="utf-8").splitlines(keepends=True)[0] * 2 + "".join(
        practice.PAIRS.read_text(encoding="utf-8").splitlines(keepends=True)[:60]) * 2, encoding="utf-8")
    train, held_out = split(str(path))
    assert held_out and len(set(train) & set(held_out)) <= 1  # at most the one at the border


def test_a_run_that_began_by_the_first_rules_goes_on_by_them(tmp_path):
    """As it was drawn: a permutation of the number of pairs, the last ones held out, one at least."""
    source = first_pairs(tmp_path, 30)
    order = np.random.default_rng(42).permutation(30).tolist()
    assert drawing.drawn([0] * 30, [False] * 30, Settings.from_form(**{"data.held_out": 0.05}).data, rules=1) == (order, 2)
    train, held_out = split(source, rules=1)
    lines = [json.dumps(json.loads(line)) for line in Path(source).read_text(encoding="utf-8").splitlines()]
    assert (train, held_out) == ([lines[at] for at in order[:27]], [lines[at] for at in order[27:]])
    training = Settings.from_form(**{"training.warmup_steps": 10}).training
    assert (warmup_for(training, 5, rules=1), held_out_for(3, 0.05, rules=1), plan.plan(Settings(), 3, 1, rules=1).remarks) == (10, 1, ())


def test_what_a_run_began_with_stands_in_its_log():
    began = 1_700_000_000.0
    old = begun.of([Started("cpu", {}, at=began), Planned(3, 1, 1), Started("cpu", {}, at=began + 90_000)])
    assert (old.rules, old.moment) == (1, datetime.fromtimestamp(began))
    new = begun.of([Started("cpu", {}, at=began), Planned(3, 1, 1, rules=2, moment="2026-11-27T23:50:01")])
    assert (new.rules, new.moment) == (2, datetime(2026, 11, 27, 23, 50, 1))
    fresh = begun.of([Started("cpu", {})])
    assert fresh.rules == plan.RULES and abs((datetime.now() - fresh.moment).total_seconds()) < 60
    with pytest.raises(StudioError, match="newer version"):
        begun.of([Planned(3, 1, 1, rules=99)])


@pytest.mark.slow
def test_a_run_of_the_version_before_resumes_with_its_own_pairs_and_rates(tmp_path):
    choices = {"data.source": first_pairs(tmp_path, 40), "training.max_steps": 8, "training.checkpoint_every": 2, "training.warmup_steps": 6,
               "data.held_out": 0.05}
    run = runs.create(tmp_path / "runs", jobs_at_work.practice(**choices))
    events.append(run.folder / events.FILE, Planned(38, 2, 8))  # as a log of that version begins
    jobs.start(jobs.of(run))
    assert ended(run) == "finished", log_of(run)
    rates = {step.step: step.metrics["learning_rate"] for step in heard(run, events.Stepped)}
    assert rates[6] < rates[7] and len(run.held_out.read_text(encoding="utf-8").splitlines()) == 2
    lines = (run.folder / events.FILE).read_text(encoding="utf-8").splitlines()
    older = [json.dumps({name: value for name, value in json.loads(line).items() if name not in ("rules", "moment")}) for line in lines]
    (run.folder / events.FILE).write_text("\n".join(older) + "\n", encoding="utf-8")
    Queue(tmp_path / "runs", poll_seconds=0.1).open().resume(run)
    jobs_at_work.until(lambda: len(heard(run, events.Finished)) == 2)
    assert heard(run, events.Resumed)[0].step == 6
    assert {step.step: step.metrics["learning_rate"] for step in heard(run, events.Stepped)} == rates


@pytest.mark.parametrize("system", ["Be kind.", "", None], ids=["a system prompt", "different ones", "none known"])
def test_a_plan_comes_back_from_the_log_as_it_was_said(tmp_path, system):
    """Read as no event at all, a run loses its template's hash, its rules and its date."""
    said = Planned(3, 1, 1, "abc", system, 2, "2026-11-27T23:50:01", 5)
    events.append(tmp_path / "log", said)
    assert events.read(tmp_path / "log") == [said]


@pytest.mark.parametrize("kind", events.KINDS.values(), ids=lambda kind: kind.__name__)
def test_every_field_of_every_event_has_a_check(kind):
    assert set(event_fields._checks(kind)) == {field.name for field in fields(kind)}
