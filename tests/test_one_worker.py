"""One worker for each run: wherever the page that launches it dies, however full the disk is, whoever presses Cancel meanwhile."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from studio import events, jobs, launcher, processes, runs
from studio.errors import StudioError
from studio.jobs import PROJECT, Queue
from tests.jobs_at_work import ended, heard, log_of, practice, said, until

LAUNCHING = """
import os, signal, sys
from pathlib import Path
from studio import events, jobs, launcher, processes, runs

def dies(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

run, where = runs.Run(Path(sys.argv[1])), sys.argv[2]
real_write, real_popen = processes.write, launcher.subprocess.Popen
def launched(argv, **options):
    process = real_popen(argv, **options)
    if "studio.engine.train" in argv and where == "launched":
        dies()
    return process
launcher.subprocess.Popen = launched
if where == "written down":
    launcher._hand_over = dies
if where == "handed over":
    launcher._attend = dies
jobs.start(jobs.of(run), {"token": "hf_mine"})
import time; time.sleep(5)
"""
"""A page that is killed at one point between deciding on a worker and having nothing more to do with it."""


def workers_of(folder: Path) -> list[psutil.Process]:
    """The processes that train on a folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "studio.engine.train" in line and str(folder) in line:
            found.append(process)
    return found


@pytest.fixture
def leaves_nobody(tmp_path):
    yield
    for process in workers_of(tmp_path) + [one for run in runs.listed(tmp_path) for one in workers_of(run.folder)]:
        process.kill()


@pytest.mark.fault("T82")
@pytest.mark.parametrize("where", ["launched", "written down", "handed over"])
def test_a_page_that_dies_while_it_starts_a_worker_leaves_one_run_with_one_log(tmp_path, where, leaves_nobody, tries):
    run = runs.create(tmp_path, practice())
    dead = subprocess.run([sys.executable, "-c", LAUNCHING, str(run.folder), where], cwd=PROJECT)
    assert dead.returncode == -signal.SIGKILL
    queue = Queue(tmp_path, poll_seconds=0.1).open()  # the page that is started next
    try:
        assert ended(run) == "finished", log_of(run)
    finally:
        queue.close()
    words = [type(event) for event in said(run)]
    assert words.count(events.Started) == 1 == words.count(events.Finished), "One worker, one log."
    assert [event.step for event in heard(run, events.Stepped)] == [1, 2, 3, 4]
    until(lambda: not workers_of(run.folder), 20)
    tries(1)


@pytest.mark.fault("T82")
def test_of_two_workers_on_one_run_the_second_leaves_without_a_word(tmp_path, leaves_nobody):
    run = runs.create(tmp_path, practice())
    lock = processes.take(run.folder)
    assert processes.is_taken(run.folder) and jobs.status(jobs.of(run)) == "starting", "Somebody works on it, whoever that is."
    second = subprocess.run([sys.executable, "-m", "studio.engine.train", str(run.folder)], cwd=PROJECT, input="{}", text=True, capture_output=True)
    assert second.returncode == 0 and "works on" in second.stderr and [type(event) for event in said(run)] == [events.Queued]
    lock.close()
    assert not processes.is_taken(run.folder) and jobs.status(jobs.of(run)) == "queued"


def test_a_lock_goes_with_its_process_however_that_ends(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", "import sys, time; from pathlib import Path; from studio import processes\n"
                               "lock = processes.take(Path(sys.argv[1])); print('mine', flush=True); time.sleep(600)", str(tmp_path)],
                              cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "mine\n" and processes.is_taken(tmp_path)
    holder.kill()
    holder.wait()
    assert not processes.is_taken(tmp_path) and processes.take(tmp_path)


# --- a full disk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def sleepers(monkeypatch):
    """Workers that do nothing and stay, as they were launched."""
    launched, real = [], launcher.subprocess.Popen

    def sleeping(argv, **options):
        if "-m" in argv and argv[2].startswith("studio.engine."):
            launched.append(real([sys.executable, "-c", "import time; time.sleep(600)"], **options))
            return launched[-1]
        return real(argv, **options)

    monkeypatch.setattr(launcher.subprocess, "Popen", sleeping)
    yield launched
    for process in launched:
        process.kill()
        process.wait()


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.fault("T91")
def test_a_worker_that_cannot_be_written_down_is_ended_at_once_and_the_run_says_so(tmp_path, monkeypatch, sleepers):
    queue, run = Queue(tmp_path), runs.create(tmp_path, practice())
    monkeypatch.setattr(processes, "write", full)
    assert queue.advance() == run
    assert len(sleepers) == 1 and sleepers[0].poll() == -signal.SIGKILL, "No orphan."
    assert jobs.status(jobs.of(run)) == "failed" and "The disk is full" in heard(run, events.Failed)[0].reason
    assert queue.advance() is None and len(sleepers) == 1


@pytest.mark.fault("T91")
def test_on_a_disk_that_takes_not_even_the_reason_nothing_is_launched_again_and_it_is_said_later(tmp_path, monkeypatch, sleepers):
    queue, run = Queue(tmp_path), runs.create(tmp_path, practice())
    append = events.append
    with monkeypatch.context() as patched:
        patched.setattr(processes, "write", full)
        patched.setattr(events, "append", full)
        for _ in range(5):
            try:
                queue.advance()
            except OSError:
                continue
        assert len(sleepers) == 1 and sleepers[0].poll() is not None, "One try, and no orphan."
        assert "could not be started" in queue.trouble(run), "The page says why it waits."
    assert events.append is append
    queue._write_down_what_was_given_up()
    assert jobs.status(jobs.of(run)) == "failed" and queue.trouble(run) == "" and len(sleepers) == 1


@pytest.mark.fault("T91")
def test_a_merge_whose_worker_cannot_be_written_down_is_refused_in_words_and_has_failed(tmp_path, monkeypatch, sleepers):
    run = runs.create(tmp_path, practice())
    monkeypatch.setattr(processes, "write", full)
    with pytest.raises(StudioError, match="could not be started. The disk is full"):
        jobs.request(jobs.of(run, "merge"), "{}\n")
    assert jobs.status(jobs.of(run, "merge")) == "failed" and sleepers[0].poll() is not None


@pytest.mark.fault("T91")
def test_a_run_that_cannot_be_written_is_refused_in_words_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(events, "append", full)
    with pytest.raises(StudioError, match="The disk is full"):
        Queue(tmp_path).add(practice())
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


# --- Cancel in the moment of starting ---------------------------------------------------------------------------------


@pytest.mark.fault("T92")
@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_a_run_that_is_cancelled_while_a_slow_chat_ends_does_not_train(tmp_path, sleepers, seconds):
    pressed = threading.Event()

    def a_chat_ends():
        pressed.set()
        time.sleep(seconds)
        until(lambda: jobs.status(jobs.of(run)) == "stopped", 10)

    queue = Queue(tmp_path, before_start=a_chat_ends)
    run = queue.add(practice())
    cancels = threading.Thread(target=lambda: (pressed.wait(), jobs.stop(jobs.of(run))))
    cancels.start()
    assert queue.advance() is None and sleepers == []
    cancels.join()
    assert jobs.status(jobs.of(run)) == "stopped" and queue.advance() is None and sleepers == []


# --- two servers on one folder ----------------------------------------------------------------------------------------


@pytest.mark.fault("T28")
def test_a_run_with_a_token_is_started_by_the_server_that_has_it(tmp_path, sleepers):
    asks = subprocess.Popen(
        [sys.executable, "-c", "import sys, time; from pathlib import Path; from studio.jobs import Queue; from tests.jobs_at_work import practice\n"
         "Queue(Path(sys.argv[1])).add(practice(), {'token': 'hf_mine'}); print('asked', flush=True); time.sleep(600)", str(tmp_path)],
        cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    try:
        assert asks.stdout.readline() == "asked\n"
        [run], other = runs.listed(tmp_path), Queue(tmp_path)
        assert other.advance() is None and sleepers == [], "It would begin without its token."
        assert "hf_mine" not in "".join(path.read_text(encoding="utf-8") for path in run.folder.iterdir() if path.is_file())
    finally:
        asks.kill()
        asks.wait()
    assert other.advance() == run and len(sleepers) == 1
    assert "Hub token" in heard(run, events.Noted)[0].text, "What went with that server is said."


def test_a_run_without_a_token_is_anybody_s_to_start(tmp_path, sleepers):
    run = Queue(tmp_path).add(practice())
    assert not (run.folder / processes.KEEPER).exists() and Queue(tmp_path).advance() == run


def test_a_worker_is_handed_its_token_by_the_server_that_keeps_it(tmp_path, monkeypatch):
    handed, queue = [], Queue(tmp_path)
    monkeypatch.setattr(launcher, "launch", lambda kind, folder, secrets: handed.append(secrets))
    run = queue.add(practice(), {"token": "hf_mine"})
    assert json.loads((run.folder / processes.KEEPER).read_text(encoding="utf-8"))["pid"] == os.getpid()
    assert queue.advance() == run and handed == [{"token": "hf_mine"}]


# --- a second start ---------------------------------------------------------------------------------------------------


@pytest.mark.fault("T91")
def test_a_second_start_on_a_port_that_is_taken_touches_nothing_of_the_running_studio(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        upload = tmp_path / "temporary" / str(port) / "upload.jsonl"
        upload.parent.mkdir(parents=True)
        upload.write_text("of somebody who is at it", encoding="utf-8")
        second = subprocess.run([sys.executable, "app.py", "--port", str(port), "--runs", str(tmp_path)], cwd=PROJECT, capture_output=True,
                                text=True, timeout=60)
    assert second.returncode == 1 and "Another studio may run there" in second.stderr and "Traceback" not in second.stderr
    assert upload.read_text(encoding="utf-8") == "of somebody who is at it" and [path.name for path in tmp_path.iterdir()] == ["temporary"]
