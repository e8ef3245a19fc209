"""What workers print: secrets blotted out, long logs cut, and neither the page's end nor a full disk in the way."""

import subprocess
import sys
import time

import psutil
import pytest

from studio import events, jobs, output, runs
from studio.jobs import PROJECT
from tests.jobs_at_work import ended, heard, log_of, practice, until

CANARY = "hf_" + "CanaryThatNobodyMayEverRead0123456"


def printed(program: str, log, secrets=(), **options) -> str:
    """What stands in the log after a program has printed into it."""
    with output.into(log, secrets) as pipe:
        process = subprocess.Popen([sys.executable, "-c", program], stdout=pipe, stderr=subprocess.STDOUT, **options)
    process.wait(timeout=60)
    until(lambda: not writers(log))
    return log.read_text(encoding="utf-8", errors="replace")


def writers(log) -> list:
    return [process for process in psutil.process_iter(["cmdline", "status"])
            if str(log) in (process.info["cmdline"] or ()) and process.info["status"] != psutil.STATUS_ZOMBIE]


@pytest.mark.fault("T65")
@pytest.mark.parametrize("program", [
    "print({0!r})", "import sys; sys.stderr.write({0!r})", "import os; os.write(1, {0!r}.encode())", "raise ValueError({0!r})",
    "import sys, time; sys.stdout.write({0!r}[:12]); sys.stdout.flush(); time.sleep(0.3); print({0!r}[12:])", "print('x' * 200 + {0!r} + 'y' * 200)"])
def test_a_token_is_blotted_out_however_it_is_printed(tmp_path, program):
    found = printed(program.format(CANARY), tmp_path / "log", [CANARY])
    assert output.PROJECT == PROJECT and CANARY not in found and "[token]" in found


def test_a_secret_of_any_form_is_blotted_out_where_it_is_known(tmp_path):
    assert "my-odd-secret" not in printed("print('it is my-odd-secret, you see')", tmp_path / "log", ["my-odd-secret"])


def test_words_about_tokens_stay(tmp_path):
    assert printed("print('pad_token: <pad>, token count 34')", tmp_path / "log") == "pad_token: <pad>, token count 34\n"


@pytest.mark.fault("T25")
def test_ten_megabytes_of_output_leave_a_short_log_that_ends_as_they_did(tmp_path):
    log = tmp_path / "log"
    found = printed("for n in range(140_000): print(f'{n:07} ' + 'x' * 66)\nprint('the end')", log)
    assert log.stat().st_size <= output.LARGEST + output.LONGEST_LINE and found.endswith("the end\n")
    assert found.startswith("[what came before was cut")


def test_what_a_killed_worker_had_printed_is_there(tmp_path):
    program = "import os, signal; print('before the end', flush=True); os.kill(os.getpid(), signal.SIGSEGV)"
    assert "before the end" in printed(program, tmp_path / "log")


PRINTING = """
import sys, time
from studio.engine import train
from studio.engine.orpo.trainer import ORPOTrainer
from studio.engine.worker import work
real = ORPOTrainer.training_step
def training_step(*inputs, **options):
    time.sleep(0.5)
    print("a step begins", flush=True)
    return real(*inputs, **options)
ORPOTrainer.training_step = training_step
sys.exit(work(train.train))
"""


@pytest.mark.fault("T37")
def test_a_run_whose_log_is_written_no_more_goes_on_and_finishes(tmp_path):
    """The process that keeps the log is killed; whoever prints then would be ended by a broken pipe."""
    run = runs.create(tmp_path, practice(**{"training.max_steps": 6}))
    log = run.folder / "worker.log"
    with output.into(log) as pipe:
        worker = subprocess.Popen([sys.executable, "-c", PRINTING, str(run.folder)], cwd=PROJECT, stdin=subprocess.DEVNULL,
                                  stdout=pipe, stderr=subprocess.STDOUT)
    until(lambda: heard(run, events.Stepped))
    for writer in writers(log):
        writer.kill()
    assert worker.wait(timeout=60) == 0, heard(run, events.Failed)
    assert heard(run, events.Finished) and "a step begins" in log_of(run)


@pytest.mark.slow
@pytest.mark.fault("T25")
def test_a_run_whose_server_is_gone_goes_on_printing_and_finishes(tmp_path):
    """Every client and the server gone: nobody is left who could read a pipe."""
    program = ("import sys; from pathlib import Path; from studio import jobs, runs\n"
               "jobs.start(jobs.of(runs.Run(Path(sys.argv[1]))), {'token': sys.argv[2]})")
    run = runs.create(tmp_path, practice())
    subprocess.run([sys.executable, "-c", program, str(run.folder), CANARY], cwd=PROJECT, check=True, timeout=60)
    assert ended(run) == "finished", log_of(run)
    until(lambda: not writers(run.folder / "worker.log"))
    assert heard(run, events.Finished) and CANARY not in log_of(run)


@pytest.mark.slow
def test_no_reader_is_left_when_a_worker_has_ended(tmp_path):
    run = runs.create(tmp_path, practice(**{"data.source": "/nowhere/pairs.jsonl"}))
    jobs.start(jobs.of(run))
    assert ended(run) == "failed"
    until(lambda: not writers(run.folder / "worker.log"), 10)
    time.sleep(0.1)
    assert "There is no file" in log_of(run) or "nowhere" in log_of(run)
