"""How a run can end, and what does not end it: signals are told, a tracker that fails is left out, a chat waits its turn."""

import os
import signal
import subprocess
import sys
import time

import pytest

from studio import events, jobs, launcher, processes, runs
from studio.candidates import BASE, Candidate
from studio.chat import Chat, Sampling
from studio.errors import StudioError
from studio.jobs import PROJECT, Queue
from studio.summary import Summary
from studio.ui import runs_tab
from tests.jobs_at_work import ended, heard, log_of, practice, said, until
from tests.tiny_run import tiny_base, tuned_run

SLOW = {"training.max_steps": 2000}


@pytest.fixture(scope="module")
def at_work(tmp_path_factory):
    """A training in the middle of its steps, and the folder that it computes on."""
    root = tmp_path_factory.mktemp("runs")
    queue = Queue(root, poll_seconds=0.1).open()
    run = queue.add(practice(**SLOW))
    until(lambda: heard(run, events.Stepped))
    yield run
    jobs.end(jobs.of(run))
    queue.close()


@pytest.mark.fault("T18c")
def test_a_chat_waits_until_a_training_has_ended_and_the_training_does_not_notice(at_work, tmp_path):
    finished = tuned_run(at_work.folder.parent, tiny_base(tmp_path / "base"))
    talk = [{"role": "user", "content": "How many legs has a spider?"}]
    chat = Chat()
    with pytest.raises(StudioError, match="A training is at work"):
        list(chat.ask(finished, (BASE, Candidate(finished.name)), (talk, talk), Sampling()))
    chat.close()
    taken = len(heard(at_work, events.Stepped))
    until(lambda: len(heard(at_work, events.Stepped)) > taken)


@pytest.mark.fault("T24", "T33")
def test_a_worker_killed_by_a_signal_is_told_within_seconds_with_its_cause_and_last_step(at_work):
    worker, began = processes.read(at_work.folder), time.monotonic()
    os.kill(worker.pid, signal.SIGSEGV)
    until(lambda: jobs.status(jobs.of(at_work)) == "crashed" and jobs.exit_code(jobs.of(at_work)) is not None, 5)
    assert time.monotonic() - began < 5 and jobs.exit_code(jobs.of(at_work)) == -signal.SIGSEGV
    shown = runs_tab.head(at_work, "crashed", Summary(said(at_work)))
    assert "inside a library (SIGSEGV)" in shown and "Its last step was" in shown
    assert jobs.status(jobs.of(at_work)) == "crashed", "It is never called running."


@pytest.mark.fault("T24")
def test_a_worker_that_leaves_without_a_word_is_told_by_its_code(tmp_path, monkeypatch):
    """`os._exit(3)`, as a library does that gives up."""
    run = runs.create(tmp_path, practice())
    real = launcher.subprocess.Popen

    def leaving(command, **options):
        is_worker = any(part.startswith("studio.engine.") for part in command)
        return real([sys.executable, "-c", "import os; os._exit(3)"] if is_worker else command, **options)

    monkeypatch.setattr(launcher.subprocess, "Popen", leaving)
    jobs.start(jobs.of(run))
    until(lambda: jobs.exit_code(jobs.of(run)) == 3, 10)
    assert jobs.status(jobs.of(run)) == "crashed"
    assert "exit code 3" in runs_tab.head(run, "crashed", Summary(said(run)))


WORKER = """
import sys
import studio.trackers
from studio.engine import trackers, train
from studio.engine.worker import work
class Away:
    told = "It writes far away."
    def __init__(self, *given):
        pass
    def log(self, *given):
        raise ConnectionError("the tracker's server is away")
    close = log
trackers.TensorBoard = Away
studio.trackers.refuse_one_that_is_missing = lambda name: None
sys.exit(work(train.train, lambda desk: "cpu"))
"""


@pytest.mark.fault("T37")
@pytest.mark.slow
def test_a_tracker_that_fails_at_every_call_is_left_out_and_the_run_finishes(tmp_path):
    run = runs.create(tmp_path, practice(**{"training.report_to": "tensorboard"}))
    done = subprocess.run([sys.executable, "-c", WORKER, str(run.folder)], cwd=PROJECT, stdin=subprocess.DEVNULL, timeout=120,
                          capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert ended(run) == "finished", log_of(run)
    (note,) = [event.text for event in heard(run, events.Noted) if "TensorBoard failed" in event.text]
    assert "the tracker's server is away" in note and "goes on" in note


@pytest.mark.fault("T29")
@pytest.mark.parametrize("moment", [0.5, *(pytest.param(moment, marks=pytest.mark.slow) for moment in (0.0, 2.5, 4.0))])
def test_stop_pressed_at_any_moment_of_the_start_ends_the_run_once(tmp_path, moment):
    run = runs.create(tmp_path, practice(**SLOW))
    jobs.start(jobs.of(run))
    time.sleep(moment)
    jobs.stop(jobs.of(run))
    jobs.stop(jobs.of(run))
    assert ended(run) == "stopped", log_of(run)
    jobs.stop(jobs.of(run))
    assert len([event for event in said(run) if isinstance(event, events.LAST_WORDS)]) == 1
    assert jobs.status(jobs.of(run)) == "stopped", "Stop after the end changes nothing."


STARVED = """
import sys
import torch
from studio.engine import checkpoints, evaluate, train
from studio.engine.orpo import resuming
from studio.engine.worker import work
def without_memory(holder, name, call):
    real, calls = getattr(holder, name), []
    def starved(*inputs, **options):
        calls.append(1)
        if len(calls) >= call:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return real(*inputs, **options)
    setattr(holder, name, starved)
where = sys.argv.pop()
if where == "gathering":
    without_memory(resuming, "taken", 2)
elif where == "writing":
    without_memory(checkpoints, "save_file", 4)  # the second of its files of tensors
elif where == "measuring":
    without_memory(evaluate, "measure", 2)  # the first was the base's
sys.exit(work(train.train, lambda desk: "cpu"))
"""


@pytest.mark.fault("T18")
@pytest.mark.slow
@pytest.mark.parametrize("where", ["gathering", "writing", "measuring"])
def test_memory_that_runs_out_beside_the_steps_is_told_and_costs_no_checkpoint(tmp_path, where):
    run = runs.create(tmp_path, practice(**{"training.checkpoint_every": 2, "training.max_steps": 6, "evaluation.every": 4}))
    subprocess.run([sys.executable, "-c", STARVED, str(run.folder), where], cwd=PROJECT, stdin=subprocess.DEVNULL, timeout=120,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert jobs.status(jobs.of(run)) == "failed", log_of(run)
    assert "ran out of memory" in Summary(said(run)).failure
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-00000002"], "Nothing half is left."
    queue = Queue(tmp_path)
    queue.resume(run)
    queue.advance()
    assert ended(run) == "finished", log_of(run)
    assert heard(run, events.Resumed)[0].step == 2
    assert [event.step for event in Summary(said(run)).steps] == [1, 2, 3, 4, 5, 6]
