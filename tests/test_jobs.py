"""Jobs: status is worked out, one run computes at a time, and neither a killed worker nor a new server confuses anyone."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import psutil
import pytest

from studio import events, jobs, processes, runs
from studio.errors import BusyError, StudioError
from studio.jobs import Queue
from tests.jobs_at_work import ended, heard, practice, until

SLOW = {"training.max_steps": 2000}
"""A run that will not end by itself within a test."""


@pytest.fixture
def queue(tmp_path):
    queue = Queue(tmp_path / "runs", poll_seconds=0.1).open()
    yield queue
    queue.close()
    for run in runs.everywhere(queue.home):  # no test leaves a worker behind
        kill(run)


def kill(run, how=signal.SIGKILL):
    worker = processes.read(run.folder)
    if worker and worker.alive:
        worker.signal_all(how)
        until(lambda: not worker.alive, 10)


def status(run):
    return jobs.status(jobs.of(run))


def record(run, pid: int, **changes):
    """Say that this process works on the run."""
    processes.write(run.folder, replace(processes.of(pid), **changes))


@pytest.fixture
def idle(tmp_path):
    """A run that nobody starts."""
    return runs.create(tmp_path, practice())


def test_a_new_run_is_queued_and_whole(idle):
    assert status(idle) == "queued"
    assert idle.settings == practice()
    assert runs.listed(idle.folder.parent) == [idle]


def test_a_run_that_is_started_the_moment_it_is_there_is_handed_its_secrets(tmp_path, monkeypatch):
    handed, queue = [], Queue(tmp_path)
    alone = queue.alone

    @contextmanager
    def and_the_watch_is_next():
        with alone():
            yield
        monkeypatch.setattr(queue, "alone", alone)
        queue.advance()

    monkeypatch.setattr(jobs, "start", lambda job, secrets: handed.append(secrets))
    monkeypatch.setattr(queue, "alone", and_the_watch_is_next)
    queue.add(practice(), {"token": "hf_mine"})
    assert handed == [{"token": "hf_mine"}]


def test_a_run_that_goes_on_the_moment_it_may_is_handed_its_secrets(idle, monkeypatch):
    handed, queue, append = [], Queue(idle.folder.parent), events.append

    def and_the_watch_is_next(log, event):
        append(log, event)
        queue.advance()

    append(jobs.of(idle).log, events.Stopped(step=1))
    (idle.checkpoints / "step-1").mkdir(parents=True)
    (idle.checkpoints / "step-1" / "manifest.json").touch()
    monkeypatch.setattr(jobs, "start", lambda job, secrets: handed.append(secrets))
    monkeypatch.setattr(events, "append", and_the_watch_is_next)
    queue.resume(idle, {"token": "hf_mine"})
    assert handed == [{"token": "hf_mine"}]


def test_a_folder_nobody_asked_for_has_no_status(tmp_path):
    assert jobs.status(jobs.Job("train", tmp_path)) is None


@pytest.mark.parametrize(("word", "means"), [(events.Finished(), "finished"), (events.Stopped(3), "stopped"), (events.Failed("x"), "failed")])
def test_the_last_word_is_the_status_whatever_lives(idle, word, means):
    record(idle, os.getppid())
    assert status(idle) == "starting"
    events.append(jobs.of(idle).log, word)
    assert status(idle) == means


def test_a_pid_that_another_process_took_over_is_not_ours(idle):
    record(idle, os.getppid(), started=1.0)
    assert status(idle) == "crashed"


@pytest.mark.fault("T32")
@pytest.mark.parametrize("pid", [0, 1, -1, os.getpid(), 2**31 - 1, 2**70], ids=["0", "1", "-1", "own", "largest", "beyond"])
def test_a_number_that_can_be_no_worker_s_is_a_crash_and_is_never_signalled(idle, pid):
    worker = processes.Worker(pid, processes.birth(os.getpid()), processes.boot())
    processes.write(idle.folder, worker)
    assert status(idle) == "crashed"
    worker.signal_all(signal.SIGKILL)  # would end this test, or all tests
    jobs.end(jobs.of(idle))


@pytest.mark.fault("T31", "T32")
def test_a_worker_of_another_boot_is_gone_whatever_has_its_number_now(idle):
    record(idle, os.getppid(), boot="another")
    assert status(idle) == "crashed"


@pytest.mark.fault("T30")
def test_setting_the_clock_makes_no_worker_another(idle, monkeypatch):
    record(idle, os.getppid())
    monkeypatch.setattr(time, "time", lambda: 4e9)
    monkeypatch.setattr(psutil, "boot_time", lambda: 4e9)
    assert status(idle) == "starting"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 0, "started": 1}', '{"pid": "x", "started": 1}', '{"pid": -1}'])
@pytest.mark.fault("T32")
def test_a_damaged_record_is_a_crash_and_signals_nobody(idle, text):
    (idle.folder / "worker.json").write_text(text, encoding="utf-8")
    assert status(idle) == "crashed"


@pytest.mark.fault("T29")
def test_a_queued_run_that_is_stopped_never_starts(tmp_path):
    run = runs.create(tmp_path, practice())
    jobs.stop(jobs.of(run))
    jobs.stop(jobs.of(run))
    assert status(run) == "stopped"
    assert Queue(tmp_path).advance() is None


@pytest.mark.slow
def test_a_second_start_waits_its_turn_and_then_runs(queue):
    first, second = queue.add(practice()), queue.add(practice())
    until(lambda: status(first) == "running")
    assert status(second) == "queued"
    assert ended(first) == "finished"
    assert ended(second) == "finished"
    assert heard(second, events.Started)[0].at >= heard(first, events.Finished)[0].at


@pytest.mark.fault("T28")
def test_two_servers_on_one_folder_start_one_worker(tmp_path):
    run = runs.create(tmp_path, practice(**SLOW))
    queues = [Queue(tmp_path) for _ in range(8)]
    started = []
    threads = [threading.Thread(target=lambda queue=queue: started.append(queue.advance())) for queue in queues]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert [one for one in started if one] == [run]
        with pytest.raises(BusyError, match="already works"):
            jobs.start(jobs.of(run))
    finally:
        kill(run)


@pytest.mark.fault("T29")
def test_stop_ends_after_the_step_keeps_the_adapter_and_says_so(queue):
    run = queue.add(practice(**SLOW))
    until(lambda: heard(run, events.Stepped))
    jobs.stop(jobs.of(run))
    assert ended(run) == "stopped"
    assert (run.adapter / "adapter_model.safetensors").is_file()
    last_step = heard(run, events.Stepped)[-1].step
    assert heard(run, events.Stopped)[-1].step == heard(run, events.Saved)[-1].step == last_step < 2000


@pytest.mark.fault("T24")
@pytest.mark.slow
def test_sigterm_is_a_stop_too(queue):
    run = queue.add(practice(**SLOW))
    until(lambda: heard(run, events.Stepped))
    os.kill(processes.read(run.folder).pid, signal.SIGTERM)
    assert ended(run) == "stopped" and run.adapter.is_dir()


@pytest.mark.fault("T24")
@pytest.mark.slow
def test_a_killed_worker_is_a_crash_within_seconds_and_the_next_run_starts(queue):
    run = queue.add(practice(**SLOW))
    until(lambda: heard(run, events.Stepped))
    kill(run)
    until(lambda: status(run) == "crashed", 5)
    following = queue.add(practice())
    assert ended(following) == "finished"


@pytest.mark.slow
@pytest.mark.fault("T31")
def test_a_run_outlives_its_server_and_the_next_server_finds_it(tmp_path):
    root = tmp_path / "runs"
    program = ("import sys, time; from pathlib import Path; from studio.jobs import Queue; from studio.settings import Settings; "
               "queue = Queue(Path(sys.argv[1])).open(); queue.add(Settings.from_yaml(sys.argv[2])); time.sleep(600)")
    server = subprocess.Popen([sys.executable, "-c", program, str(root), practice(**{"training.max_steps": 40}).to_yaml()],
                              cwd=jobs.PROJECT)
    try:
        run = until(lambda: runs.listed(root))[0]
        until(lambda: heard(run, events.Stepped))
    finally:
        server.kill()
        server.wait()
    assert status(run) == "running"
    adopted = Queue(root, poll_seconds=0.1).open()
    try:
        waiting = adopted.add(practice())
        time.sleep(0.5)
        assert status(waiting) == "queued"
        assert ended(run) == "finished" and ended(waiting) == "finished"
    finally:
        adopted.close()


@pytest.mark.fault("T64")
def test_the_token_reaches_the_worker_by_pipe_and_nothing_else(queue):
    canary = "hf_" + "CanaryTokenThatMustNotBeWritten01"
    run = queue.add(practice(), {"token": canary})
    until(lambda: heard(run, events.Started))
    worker = psutil.Process(processes.read(run.folder).pid)
    assert canary not in " ".join(worker.cmdline())
    assert canary not in worker.environ().values()
    assert ended(run) == "finished"
    for file in run.folder.rglob("*"):
        assert not file.is_file() or canary.encode() not in file.read_bytes(), file


@pytest.mark.parametrize("name", ["../x", "/etc", "..", ".", "", "a/b", "A B", "x\0", "nope", ".lock", "a" * 300])
def test_only_names_of_runs_find_runs(idle, name):
    with pytest.raises(StudioError, match="There is no run"):
        runs.find(idle.folder.parent, name)


@pytest.mark.fault("T63")
def test_a_link_in_the_runs_folder_is_not_a_run(idle, tmp_path):
    (tmp_path / "link").symlink_to(idle.folder)
    assert runs.listed(tmp_path) == [idle]
