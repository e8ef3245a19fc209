"""Many runs and few machines: an order that can be changed, one worker however often Start is pressed, and workers that hang."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from gradio_client import Client

from studio import events, gpu, jobs, line, processes, pulse, runs
from studio.errors import BusyError
from studio.jobs import PROJECT, Queue
from studio.summary import Summary
from studio.ui import runs_tab
from tests.jobs_at_work import ended, heard, practice, said, until
from tests.studio_at_work import StudioProcess

SLOW = {"training.max_steps": 2000}


def names(queue: Queue) -> list[str]:
    return [run.name for run in queue.waiting()]


@pytest.fixture
def closed(tmp_path):
    """A queue that starts nothing by itself."""
    return Queue(tmp_path)


def test_runs_wait_in_the_order_in_which_they_were_asked_for_until_one_is_moved_forward(closed):
    first, second, third = (closed.add(practice(**{"data.seed": seed})) for seed in range(3))
    for place, run in enumerate((first, second, third)):
        os.utime(run.folder / "settings.yaml", (1000 + place, 1000 + place))
    assert names(closed) == [first.name, second.name, third.name]
    closed.forward(third)
    assert names(closed) == [first.name, third.name, second.name]
    closed.forward(third)
    closed.forward(second)
    assert names(closed) == [third.name, second.name, first.name]
    assert names(Queue(closed.home)) == [third.name, second.name, first.name], "A restarted studio keeps the order."
    with pytest.raises(BusyError, match="is the next one"):
        closed.forward(third)


def test_a_waiting_run_that_is_cancelled_leaves_the_line(closed):
    first, second = (closed.add(practice(**{"data.seed": seed})) for seed in range(2))
    jobs.stop(jobs.of(first))
    assert names(closed) == [second.name] and jobs.status(jobs.of(first)) == "stopped"


def test_nobody_passes_a_run_that_is_not_theirs_to_move(closed):
    first, second = (closed.add(practice(), room=runs.room(closed.home, user)) for user in ("anna", "bert"))
    for place, run in enumerate((first, second)):
        os.utime(run.folder / "settings.yaml", (1000 + place, 1000 + place))
    with pytest.raises(BusyError, match="somebody else's"):
        closed.forward(second, past=lambda run: run.owner == "bert")
    closed.forward(second)
    assert [run.owner for run in closed.waiting()] == ["bert", "anna"], "The line goes through all rooms."


@pytest.mark.parametrize(("place", "words"), [(0, "next in line"), (1, "2nd in line"), (2, "3rd in line"), (3, "4th in line"), (10, "11th in line"), (20, "21st in line")])
def test_a_place_in_line_reads_as_one_says_it(place, words):
    assert line.in_words(place) == words


def test_runs_shows_the_place_and_which_run_is_before_it(closed):
    run = closed.add(practice())
    assert "Waiting, 2nd in line, after that-run." in runs_tab.head(
        run, "queued", Summary([]), runs_tab.in_line(1, runs.Run(closed.home / "that-run")))


@pytest.mark.fault("T28")
def test_twenty_starts_at_once_on_two_servers_make_one_run_and_one_worker(tmp_path, tries):
    """A double click, two tabs, a script, and a second studio on the same folder."""
    studios = [StudioProcess(tmp_path / "runs").start() for _ in range(2)]
    try:
        clients = [Client(studio.url, verbose=False, headers=studio.headers) for studio in studios]
        settings = practice(**SLOW).model_dump()
        with ThreadPoolExecutor(20) as pool:
            started = list(pool.map(lambda place: clients[place % 2].predict(settings, api_name="/start"), range(20)))
        tries(20)
        (run,) = runs.listed(tmp_path / "runs")
        assert set(started) == {run.name}
        until(lambda: jobs.status(jobs.of(run)) == "running")
        at_work = [process for process in psutil.process_iter(["cmdline"]) if str(run.folder) in (process.info["cmdline"] or ())]
        assert len(at_work) == 1
        assert not [path for path in (tmp_path / "runs").iterdir() if path.name.startswith(".practice")], "No half made folders."
        other = clients[0].predict(practice(**SLOW | {"data.seed": 5}).model_dump(), api_name="/start")
        assert other != run.name and jobs.status(jobs.of(runs.find(tmp_path / "runs", other))) == "queued", "Another one waits."
    finally:
        for run in runs.listed(tmp_path / "runs"):
            jobs.stop(jobs.of(run))
            jobs.end(jobs.of(run))
        for studio in studios:
            studio.kill()


# --- whoever computes holds the lock ------------------------------------------------------------------------------------


def test_a_worker_waits_while_somebody_else_computes_and_says_so(tmp_path):
    """A training that a second studio, or a person in a terminal, has started on the same folder."""
    holder = subprocess.Popen([sys.executable, "-c", "import sys, time; from pathlib import Path; from studio.engine import turn\n"
                               "lock = turn.take(Path(sys.argv[1]) / 'a-run', 'merge'); print('held', flush=True); time.sleep(600)",
                               str(tmp_path)], cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        run = runs.create(tmp_path, practice())
        jobs.start(jobs.of(run))
        until(lambda: any("a merge is at work" in event.text for event in heard(run, events.Noted)))
        assert Summary(said(run)).phase == "waiting" and jobs.status(jobs.of(run)) == "running"
    finally:
        holder.kill()
        holder.wait()
    assert ended(run) == "finished", "The lock goes with the process that held it."


@pytest.mark.slow
def test_a_worker_that_waits_for_its_turn_can_be_stopped(tmp_path):
    from studio.engine import turn

    lock = turn.take(tmp_path / "another-run", "train")
    run = runs.create(tmp_path, practice())
    jobs.start(jobs.of(run))
    until(lambda: Summary(said(run)).phase == "waiting")
    jobs.stop(jobs.of(run))
    assert ended(run) == "stopped" and not heard(run, events.Planned)
    lock.close()


# --- workers that hang --------------------------------------------------------------------------------------------------


@pytest.fixture
def at_work(tmp_path):
    """A run whose worker is in the middle of its steps."""
    queue = Queue(tmp_path, poll_seconds=0.1).open()
    run = queue.add(practice(**SLOW))
    until(lambda: heard(run, events.Stepped))
    yield run
    jobs.end(jobs.of(run))
    queue.close()


@pytest.mark.fault("T27", "T33", "T34")
def test_a_worker_that_hangs_is_shown_recovers_by_itself_and_can_be_ended(at_work):
    now, worker = [0.0], processes.read(at_work.folder)
    beats = pulse.Pulse(clock=lambda: now[0])
    until(lambda: (at_work.folder / pulse.FILE).exists())
    worker.signal_all(signal.SIGSTOP)
    until(lambda: psutil.Process(worker.pid).status() == psutil.STATUS_STOPPED)
    assert beats.silence(at_work.folder) == 0
    now[0] += pulse.SILENCE + 1
    shown = runs_tab.head(at_work, jobs.status(jobs.of(at_work)), Summary(said(at_work)), silence=beats.silence(at_work.folder))
    assert "No sign of life for 61 s" in shown and jobs.status(jobs.of(at_work)) == "running"
    worker.signal_all(signal.SIGCONT)
    until(lambda: beats.silence(at_work.folder) == 0)
    taken = len(heard(at_work, events.Stepped))
    until(lambda: len(heard(at_work, events.Stepped)) > taken)
    worker.signal_all(signal.SIGSTOP)
    jobs.stop(jobs.of(at_work))  # it cannot hear that
    jobs.end(jobs.of(at_work))
    assert jobs.status(jobs.of(at_work)) == "stopped"
    until(lambda: not worker.alive, 10)
    jobs.end(jobs.of(at_work))
    assert len(heard(at_work, events.Stopped)) == 1, "Twice is as good as once."


@pytest.mark.parametrize(("code", "words"), [(-signal.SIGKILL, "ran out of memory"), (-signal.SIGSEGV, "inside a library"), (3, "exit code 3"), (None, "machine went down")])
def test_how_a_worker_ended_is_told_with_its_last_step_and_what_to_do(code, words):
    told = runs_tab.crash(code, 7)
    assert words in told and "Its last step was 7." in told and "Resume it" in told


@pytest.mark.fault("T34")
def test_a_worker_that_has_said_its_last_word_and_does_not_leave_is_seen_off(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "LINGERS_SECONDS", 0.5)
    run = runs.create(tmp_path, practice())
    lingering = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"])
    processes.write(run.folder, processes.of(lingering.pid))
    events.append(jobs.of(run).log, events.Finished())
    queue = Queue(tmp_path, poll_seconds=0.1).open()
    assert lingering.wait(timeout=20) == -signal.SIGKILL
    assert jobs.status(jobs.of(run)) == "finished", "What it had saved stays its result."
    queue.close()


def test_a_run_that_is_resumed_while_its_last_worker_still_leaves_keeps_its_new_one(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "LINGERS_SECONDS", 0.5)
    run = runs.create(tmp_path, practice())
    leaving, new = (subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) for _ in range(2))
    processes.write(run.folder, processes.of(leaving.pid))
    events.append(jobs.of(run).log, events.Stopped(step=1))
    queue = Queue(tmp_path)
    queue.advance()  # sees it end
    events.append(jobs.of(run).log, events.Queued())
    processes.write(run.folder, processes.of(new.pid))
    try:
        until(lambda: queue.see_off() or leaving.poll() is not None, 20)
        time.sleep(1)
        queue.see_off()
        assert new.poll() is None
    finally:
        new.kill()
        new.wait()


# --- somebody else on the card ------------------------------------------------------------------------------------------


@pytest.mark.fault("T35")
def test_a_foreign_process_on_the_card_is_named_and_left_alone(tmp_path, monkeypatch):
    """A driver that names three processes: somebody's, one of the studio's own, and one that has gone."""
    foreign = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    own = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "studio.engine.train"])
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\n[ \"$1\" = --query-gpu=name,memory.total,memory.used ] && echo 'A card, 24000, 9000' && exit\n"
                      f"printf '{foreign.pid}, /usr/bin/python3, 8000\\n{own.pid}, python, 1000\\n999999999, x, [N/A]\\n[N/A], y, 1\\n'\n",
                      encoding="utf-8")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    try:
        found = gpu.others()
        assert [(other.pid, other.memory) for other in found] == [(foreign.pid, 8000 * 2**20), (999999999, 0)]
        told = gpu.others_in_words(found)
        assert f"python3 of {psutil.Process().username()} (process {foreign.pid}, 8.4 GB)" in told and "Wait until it has ended" in told
        assert foreign.poll() is None and own.poll() is None
    finally:
        for process in (foreign, own):
            process.kill()
            process.wait()


def test_without_a_card_nobody_else_is_on_it():
    assert gpu.others_in_words([]) == ""
