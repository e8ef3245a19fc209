"""Killed again and again, at moments that nobody chose: no checkpoint is lost, nothing lives on, and the result is the same."""

import fcntl
import hashlib
import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
from safetensors.torch import load_file

from studio import jobs, processes, runs
from studio.engine import checkpoints, turn
from studio.errors import StudioError
from studio.jobs import PROJECT, Queue
from studio.runs import Run
from studio.summary import Summary
from tests.jobs_at_work import ended, log_of, practice, said, until

STEPS, KEPT = 50, 2
CHOICES = {"training.max_steps": STEPS, "training.checkpoint_every": 1, "training.keep_checkpoints": KEPT, "adapter.dropout": 0.1,
           "evaluation.every": STEPS}
SERVER = """
import sys, time
from pathlib import Path
from studio import jobs, runs
from studio.jobs import Queue
queue = Queue(Path(sys.argv[1]), poll_seconds=0.05).open()
while True:
    for run in runs.listed(queue.home):
        if jobs.status(jobs.of(run)) == "crashed" and run.last_checkpoint:
            queue.resume(run)
    time.sleep(0.05)
"""
"""A studio without a page, for which somebody presses Resume at once."""
LONGEST_LIFE = 6.0
"""Seconds; a worker takes about three to begin."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nothing happened to."""
    queue = Queue(tmp_path_factory.mktemp("runs"), poll_seconds=0.1).open()
    run = queue.add(practice(**CHOICES))
    assert ended(run) == "finished", log_of(run)
    queue.close()
    return run


class House:
    """A server and its worker on one folder, which are killed and started again."""

    def __init__(self, root, seed: int):
        self.root, self.dice, self.kills = root, random.Random(seed), 0
        self.server: subprocess.Popen | None = None
        self.kept: dict[int, str] = {}

    def live(self, run: Run) -> None:
        """Let both live for a random while, or until the run has ended."""
        if self.server is None:
            self.server = subprocess.Popen([sys.executable, "-c", SERVER, str(self.root)], cwd=PROJECT,
                                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + self.dice.uniform(0.2, LONGEST_LIFE)
        while time.monotonic() < end and jobs.status(jobs.of(run)) not in ("finished", "failed"):
            time.sleep(0.01)

    def kill(self, run: Run) -> None:
        """Kill the worker, the server or both, and look what is left."""
        whom = self.dice.choice(("worker", "worker", "server", "both"))
        worker = processes.read(run.folder)
        if whom != "worker":
            self.server.kill()
            self.server.wait()
            self.server = None
        if whom != "server" and worker is not None and worker.alive:
            worker.signal_all(signal.SIGKILL)
            until(lambda: not worker.alive, 5)
            state = jobs.status(jobs.of(run))
            assert state not in jobs.ALIVE or processes.read(run.folder) != worker, "The dead are not called running."
            if self.server is None:
                self.is_empty()
        self.kills += 1
        self.look(run)

    def is_empty(self) -> None:
        """With worker and server dead nobody works on the folder, and whoever computes next need not wait for its lock."""
        until(lambda: not at_work_on(self.root), 10)
        if (lock := self.root / turn.FILE).exists():
            with open(lock, "rb") as held:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def look(self, run: Run) -> None:
        """Every checkpoint that was whole is there as it was, or gave way to two later ones."""
        there = whole_ones(run.checkpoints)
        for step, content in self.kept.items():
            later = [other for other in there if other > step]
            assert there.get(step) == content or step not in there and len(later) >= KEPT, f"The checkpoint of step {step} is lost: {list(there)}."
        self.kept = there

    def close(self) -> None:
        if self.server is not None:
            self.server.kill()
            self.server.wait()


def whole_ones(folder) -> dict[int, str]:
    """The checkpoints that can be gone on from: their steps, and what is in them."""
    while True:
        before = sorted(folder.glob("step-*"))
        try:
            return {checkpoints.opened(one).step: content_of(one) for one in before}
        except (StudioError, FileNotFoundError):  # a living worker forgot it in this moment, or it is lost
            if sorted(folder.glob("step-*")) == before:
                raise


def content_of(folder) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.iterdir()))).hexdigest()


def at_work_on(folder) -> list[int]:
    return [process.pid for process in psutil.process_iter(["cmdline", "status"]) if process.info["status"] != psutil.STATUS_ZOMBIE
            and process.pid != os.getpid() and any(str(folder) in part for part in process.info["cmdline"] or ())]


def survives(root, whole: Run, seed: int, kills: int) -> int:
    """Runs that are killed until so many kills have happened, each to its end; how many there were."""
    house, finished = House(root, seed), 0
    try:
        while house.kills < kills or finished == 0:
            run, house.kept = runs.create(root, practice(**CHOICES)), {}
            while jobs.status(jobs.of(run)) != "finished":
                house.live(run)
                assert jobs.status(jobs.of(run)) != "failed", log_of(run)
                if jobs.status(jobs.of(run)) == "finished":
                    break
                if house.kills < kills:
                    house.kill(run)
                if jobs.status(jobs.of(run)) == "crashed" and not run.last_checkpoint:  # nothing to go on from: somebody starts anew
                    run, house.kept = runs.create(root, practice(**CHOICES)), {}
            finished += 1
            assert [event.step for event in Summary(said(run)).steps] == list(range(1, STEPS + 1)), f"seed {seed}"
            mine, wanted = (load_file(one.adapter / "adapter_model.safetensors") for one in (run, whole))
            assert all(torch.equal(mine[name], wanted[name]) for name in wanted), f"seed {seed}"
    finally:
        house.close()
    until(lambda: not at_work_on(root), 20)
    return house.kills


@pytest.mark.slow
@pytest.mark.fault("T19", "T22", "T24b", "T31", "T33")
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.timeout(2400)
def test_fifty_kills_of_worker_and_server_lose_nothing(tmp_path, whole, seed, tries):
    tries(survives(tmp_path, whole, seed, kills=50))


@pytest.mark.fault("T22", "T24b", "T31", "T33")
@pytest.mark.slow
def test_some_kills_of_worker_and_server_lose_nothing(tmp_path, whole, tries):
    tries(survives(tmp_path, whole, seed=99, kills=4))
