"""Stop in every phase: a job ends within seconds wherever it is, says so, keeps what it had, and can go on."""

import signal
import subprocess
import sys
import time

import pytest

from studio import events, jobs, runs
from studio.engine import stopping
from studio.engine.stopping import Stopping, StopRequested
from studio.jobs import PROJECT
from tests.jobs_at_work import ended, heard, log_of, practice, said, until

SECONDS = 20
"""In which a stopped worker has said its last word; most of it is a slow machine's."""

WORKER = """
import sys, time
from pathlib import Path
from studio import events
from studio.engine import worker

def in_python(desk):
    desk.enter("loading")
    while True:  # a library that tells nothing
        time.sleep(0.01)

def in_a_system_call(desk):
    desk.enter("downloading")
    import socket
    ours, theirs = socket.socketpair()
    ours.recv(1)

def that_swallows_errors(desk):
    desk.enter("loading")
    while True:
        try:
            time.sleep(60)
        except BaseException:
            continue

def that_renames_them(desk):
    desk.enter("merging")
    try:
        time.sleep(600)
    except BaseException as error:
        raise RuntimeError("The library failed") from error

def in_threads(desk):
    desk.enter("downloading")
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(time.sleep, [600] * 4))

def in_a_child(desk):
    desk.enter("tokenizing")
    import subprocess
    subprocess.run([sys.executable, "-c", "import time; time.sleep(600)", "child-of-the-test"])

def that_finishes_first(desk):
    desk.enter("saving")
    time.sleep(4)
    desk.say(events.Saved(step=3, path="adapter"))

def that_tells_progress(desk):
    desk.enter("reading")
    for done in range(10**9):
        desk.progress(done, 10**9, "rows")
        time.sleep(0.05)

sys.exit(worker.work(globals()[sys.argv[2]], finishes=("training", "saving")))
"""
"""A job whose work is one of these. What is measured is how it ends."""


def started(run, task: str) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", WORKER, str(run.folder), task], cwd=PROJECT, stdin=subprocess.DEVNULL)
    until(lambda: heard(run, events.Entered))
    return process


@pytest.mark.fault("T29")
@pytest.mark.parametrize("task", ["in_python", "in_a_system_call", "that_swallows_errors", "that_renames_them", "in_threads", "in_a_child",
                                  "that_tells_progress"])
def test_a_job_ends_within_seconds_whatever_it_is_in_the_middle_of(tmp_path, task, tries):
    run = runs.create(tmp_path, practice())
    process, begun = started(run, task), time.monotonic()
    jobs.of(run).stop_file.touch()
    assert process.wait(SECONDS + 10) == 0
    assert time.monotonic() - begun < SECONDS
    assert [type(event) for event in said(run)][-1] is events.Stopped and len(heard(run, events.Stopped)) == 1 and not heard(run, events.Failed)
    tries(1)


def test_what_is_being_written_is_finished_first(tmp_path):
    run = runs.create(tmp_path, practice())
    process = started(run, "that_finishes_first")
    jobs.of(run).stop_file.touch()
    assert process.wait(SECONDS) == 0
    assert [type(event) for event in said(run)][-2:] == [events.Saved, events.Finished], "And then there was nothing left to stop."


def test_a_wish_is_heeded_where_the_job_may_be_left_and_nowhere_else(tmp_path):
    wish = Stopping(tmp_path, frozenset({"saving"}))
    wish.heed()
    (tmp_path / stopping.FILE).touch()
    with pytest.raises(StopRequested):
        wish.heed()
    with wish.undisturbed():
        wish.heed()
    wish.phase = "saving"
    wish.heed()
    wish.phase = "evaluating"
    with pytest.raises(StopRequested):
        wish.heed()
    wish.over()
    wish.heed()  # the last word is being said
    assert stopping.led_to(RuntimeError()) is False and signal.getsignal(stopping.INTERRUPT) == signal.SIG_DFL


# --- a real training --------------------------------------------------------------------------------------------------

STEPS = 40
LONG = {"training.max_steps": STEPS, "training.checkpoint_every": 0, "evaluation.every": 10, "data.rows": 400, "data.held_out": 0.5}
SLOWLY = """
import runpy, sys, time
runpy.run_path({guard!r})
sys.path.insert(0, {project!r})
if "studio.engine.train" in sys.orig_argv:
    from studio.engine import worker
    enter = worker.Desk.enter
    def slow(desk, phase):
        enter(desk, phase)
        if phase == {phase!r} and (desk.folder / "hold").exists():
            (desk.folder / "there").touch()
            until = time.monotonic() + 60
            while time.monotonic() < until and not desk.asked_to_stop:
                time.sleep(0.02)
    worker.Desk.enter = slow
"""
"""Imported by every Python at its start: a training that has entered a phase waits there until it is asked to stop."""


@pytest.mark.slow
@pytest.mark.fault("T29")
@pytest.mark.parametrize("phase", ["downloading", "tokenizing", "loading", "evaluating", "training", "saving"])
def test_a_training_that_is_stopped_in_a_phase_keeps_what_it_had_and_can_go_on(tmp_path, monkeypatch, phase, tries):
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "sitecustomize.py").write_text(SLOWLY.format(
        guard=str(PROJECT / "tests" / "guard" / "sitecustomize.py"), project=str(PROJECT), phase=phase), encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "slow"))
    run = runs.create(tmp_path / "runs", practice(**LONG))
    (run.folder / "hold").touch()
    jobs.start(jobs.of(run))
    until(lambda: (run.folder / "there").exists())
    begun = time.monotonic()
    jobs.stop(jobs.of(run))
    assert ended(run) in ("stopped", "finished") and time.monotonic() - begun < SECONDS, log_of(run)
    worked = phase in ("training", "saving")
    assert run.adapter.is_dir() == worked
    assert (jobs.status(jobs.of(run)) == "finished") <= (phase == "saving"), "Only what was saved already is not stopped any more."
    tries(1)


@pytest.mark.slow
def test_a_training_that_is_stopped_in_the_middle_of_a_measurement_keeps_its_step_and_ends_as_if_nothing_had_been(tmp_path, monkeypatch):
    from studio.jobs import Queue

    changes = LONG | {"training.checkpoint_every": 10}
    whole, cut = (runs.create(tmp_path / name, practice(**changes)) for name in ("whole", "cut"))
    jobs.start(jobs.of(whole))
    assert ended(whole) == "finished", log_of(whole)
    jobs.start(jobs.of(cut))
    until(lambda: [event for event in heard(cut, events.Entered) if event.phase == "evaluating"][1:])
    jobs.stop(jobs.of(cut))
    assert ended(cut) == "stopped", log_of(cut)
    reached = heard(cut, events.Stopped)[0].step
    assert cut.adapter.is_dir() and cut.last_checkpoint == reached == heard(cut, events.Stepped)[-1].step
    queue = Queue(tmp_path / "cut", poll_seconds=0.1).open()
    try:
        queue.resume(cut)
        until(lambda: heard(cut, events.Resumed))
        assert ended(cut) == "finished", log_of(cut)
    finally:
        queue.close()
    same = "adapter_model.safetensors"
    assert (cut.adapter / same).read_bytes() == (whole.adapter / same).read_bytes()
