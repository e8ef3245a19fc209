"""A run that everybody has left: pages closed, studio killed, fifty megabytes printed. Whoever opens the studio again sees its result."""

import fcntl
from concurrent.futures import ThreadPoolExecutor

import pytest
from gradio_client import Client

from studio import events, jobs, output, runs
from studio.jobs import PROJECT, Queue
from tests.jobs_at_work import ended, heard, log_of, practice, until
from tests.studio_at_work import StudioProcess

TALKATIVE = f"""
import runpy, sys, threading
runpy.run_path({str(PROJECT / "tests" / "guard" / "sitecustomize.py")!r})
def talk():
    for number in range(350_000):
        print(f"{{number:07}} " + "x" * 66)
        print(f"{{number:07}} " + "y" * 66, file=sys.stderr)
if "studio.engine.train" in sys.orig_argv:
    threading.Thread(target=talk).start()
"""
"""Imported by every Python at its start: a training then prints fifty megabytes beside its work."""


@pytest.mark.slow
@pytest.mark.fault("T25", "T26", "T31")
def test_a_run_that_prints_fifty_megabytes_and_is_left_by_everybody_finishes_and_is_found_again(tmp_path):
    (tmp_path / "talkative").mkdir()
    (tmp_path / "talkative" / "sitecustomize.py").write_text(TALKATIVE, encoding="utf-8")
    studio = StudioProcess(tmp_path / "runs", {"PYTHONPATH": str(tmp_path / "talkative")}).start()
    client = Client(studio.url, verbose=False, headers=studio.headers)
    name = client.predict(practice().model_dump(), api_name="/start")
    run = runs.find(studio.runs, name)
    until(lambda: heard(run, events.Started))
    client.close()
    studio.kill()
    assert ended(run) == "finished", log_of(run)
    log = run.folder / "worker.log"
    until(lambda: log_of(run).rstrip().endswith(("x" * 66, "y" * 66)) and "0349999" in log_of(run)[-10_000:])
    assert log.stat().st_size <= output.LARGEST + output.LONGEST_LINE and log_of(run).startswith("[what came before was cut")
    studio.start()
    try:
        shown = Client(studio.url, verbose=False, headers=studio.headers).predict(name, api_name="/status")
        assert shown["status"] == "finished" and shown["step"] == shown["steps"] == 4 and shown["tuned"]["n"] == 8
    finally:
        studio.kill()


@pytest.mark.fault("T36")
def test_on_a_file_system_without_locks_one_studio_still_starts_a_run_once(tmp_path, monkeypatch, tries):
    def no_locks(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    queue = Queue(tmp_path)
    with ThreadPoolExecutor(20) as pool:
        started = set(pool.map(lambda _: queue.add(practice(), once_within=60), range(20)))
    assert list(started) == runs.listed(tmp_path), "One run for twenty clicks."
    jobs.stop(jobs.of(*started))
    assert jobs.status(jobs.of(*started)) == "stopped"
    tries(20)
