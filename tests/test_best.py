"""A run that keeps its best measurement: its adapter is that of the lowest held-out loss, also when it was cut off in between."""

import os
import signal

import pytest
import torch
from safetensors.torch import load_file

from studio import card, events, processes
from studio.engine.best import Best
from studio.jobs import Queue
from studio.settings import Settings
from studio.summary import Summary, count_points, points
from studio.ui import explain
from tests.jobs_at_work import ended, heard, log_of, practice, said, until

MEMORISES = {"data.rows": 24, "data.held_out": 0.5, "training.max_steps": 24, "training.epochs": 50, "training.learning_rate": 5e-3,
             "training.batch_size": 4, "training.accumulation": 1, "training.warmup_steps": 0, "training.schedule": "constant",
             "training.checkpoint_every": 4, "training.keep_checkpoints": 20, "evaluation.every": 4, "evaluation.keep": "best",
             "evaluation.prompts": "How are you?"}
"""Twelve pairs, seen again and again until the others are told apart worse than before."""


@pytest.fixture(scope="module")
def queue(tmp_path_factory):
    queue = Queue(tmp_path_factory.mktemp("runs"), poll_seconds=0.1).open()
    yield queue
    queue.close()


@pytest.fixture(scope="module")
def whole(queue):
    """The run that nobody disturbed."""
    run = queue.add(practice(**MEMORISES))
    assert ended(run) == "finished", log_of(run)
    return run


def adapter_of(run) -> dict[str, torch.Tensor]:
    return load_file(run.adapter / "adapter_model.safetensors")


def test_the_adapter_is_that_of_the_lowest_held_out_loss(whole):
    measured = [one for one in heard(whole, events.Evaluated) if one.model == "tuned"]
    *looks, last = measured
    best = min(looks, key=lambda one: one.metrics["loss"])
    assert best.step < 24 and looks[-1].step == 24 and looks[-1].metrics["loss"] > best.metrics["loss"]
    assert (last.step, last.metrics) == (best.step, best.metrics) and len(last.margins) == 12, "It is measured again, pair by pair."
    assert heard(whole, events.Saved)[-1].step == best.step
    weights = load_file(whole.checkpoints / f"step-{best.step:08d}" / "weights.safetensors")
    adapter = adapter_of(whole)
    assert len(adapter) == len(weights) and all(torch.equal(adapter[name.replace(".default", "")], weight) for name, weight in weights.items())
    assert not (whole.folder / "best").exists(), "What became the adapter is kept once."


def test_it_is_told_with_both_losses_and_that_the_choice_flatters_it(whole):
    summary, step = Summary(said(whole)), heard(whole, events.Saved)[-1].step
    noted = heard(whole, events.Noted)[-1].text
    assert f"The adapter is that of step {step}, where the held-out loss was lowest" in noted and "at the last step, 24" in noted
    assert "flatters" in explain.verdict(summary).text and "flatters" in card.render(whole, "adapter", "ada/tuned")
    assert summary.sampled[-1].step == step and summary.samples[0].prompt == "How are you?"


def test_the_charts_keep_every_measurement_where_it_was_taken(whole):
    rows = points(said(whole))["rows"]
    assert [row["step"] for row in rows if row["split"] == "eval"] == [0, 4, 8, 12, 16, 20, 24]
    assert points(said(whole))["total"] == count_points(said(whole)) == len(rows) == 24 + 7


def test_a_run_that_was_killed_behind_its_best_measurement_ends_with_the_same_adapter(queue, whole):
    run = queue.add(practice(**MEMORISES))
    until(lambda: any(one.step == 20 for one in heard(run, events.Evaluated)))
    os.kill(processes.read(run.folder).pid, signal.SIGKILL)
    assert ended(run) == "crashed"
    queue.resume(run)
    until(lambda: heard(run, events.Finished))
    assert heard(run, events.Resumed)
    mine, wanted = adapter_of(run), adapter_of(whole)
    assert all(torch.equal(mine[name], wanted[name]) for name in wanted)
    assert heard(run, events.Saved)[-1].step == heard(whole, events.Saved)[-1].step


@pytest.mark.slow
def test_without_held_out_pairs_the_last_step_is_kept_and_that_is_told(queue):
    run = queue.add(practice(**MEMORISES | {"data.held_out": 0, "training.max_steps": 2}))
    assert ended(run) == "finished", log_of(run)
    assert [one.step for one in heard(run, events.Saved)] == [2]
    assert any("no measurement is the best one" in one.text for one in heard(run, events.Noted))


def test_only_a_lower_loss_takes_the_place_of_what_is_kept(whole, tmp_path):
    model = torch.nn.Linear(2, 2)
    best = Best(type(whole)(tmp_path), model)
    assert best.kept is None and not best.offer(1, float("nan"))
    assert best.offer(2, 0.5) and not best.offer(3, 0.5) and not best.offer(4, 0.6)
    first = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.add_(1)
    assert torch.equal(best.kept.tensors("weights")["weight"], first) and best.kept.step == 2
    assert best.offer(1, 0.4), "A step that is taken again may come before the one that is kept."
    assert best.kept.step == 1 and len(list((tmp_path / "best").iterdir())) == 1
    (best.kept.folder / "weights.safetensors").write_bytes(b"torn")
    assert best.kept is None and best.offer(5, 0.9), "What is damaged is nobody's best."
    best.forget()
    assert best.kept is None


def test_it_is_a_choice_that_settings_of_before_do_not_have():
    assert Settings().evaluation.keep == "last"
