"""Start, stop, queue and status of workers.

A job is a folder with an event log; its worker is `python -m studio.engine.<kind> FOLDER` in a session of its own,
so that it outlives the page. Status is worked out from the log's last word and from whether that very process is alive;
it is stored nowhere.
"""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from studio import credentials, events, line, output, processes, runs
from studio.errors import BusyError, StudioError
from studio.logs import Logs
from studio.runs import Run

Status = Literal["queued", "starting", "running", "finished", "stopped", "failed", "crashed"]
ALIVE: tuple[Status, ...] = ("starting", "running")
OVER: tuple[Status, ...] = ("finished", "stopped", "failed", "crashed")

EXIT = "exit.json"
LINGERS_SECONDS = 20.0
"""How long a worker that has said its last word may take to leave, before it is ended: it would keep others from computing."""

PROJECT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Job:
    """A kind of work on a folder: train on the run's own, merge, gguf and push inside it; beside the runs two steps and examine,
    and export inside an examination's.
    """

    kind: Literal["train", "merge", "gguf", "push", "two_steps", "examine", "export"]
    folder: Path

    @property
    def log(self) -> Path:
        return self.folder / events.FILE

    @property
    def stop_file(self) -> Path:
        return self.folder / "stop"


def of(run: Run, kind: Literal["train", "merge", "gguf", "push"] = "train") -> Job:
    """The job of that kind on a run."""
    return Job(kind, run.job(kind))


def trial_of(root: Path) -> Job:
    """The job that tries two steps; its folder's name is not a run's."""
    return Job("two_steps", root / ".two_steps")


def status(job: Job, said: list[events.Event] | None = None) -> Status | None:
    """Where the job stands, or None if nobody asked for it. `said` spares reading a log that is read already."""
    said = events.read(job.log) if said is None else said
    if not said:
        return None
    word = events.last(said, (events.Queued, *events.LAST_WORDS))
    if not isinstance(word, events.Queued) and word is not None:
        return {events.Finished: "finished", events.Stopped: "stopped", events.Failed: "failed"}[type(word)]
    worker = processes.read(job.folder)
    if worker is None:
        return "queued"
    if not worker.alive:
        return "crashed"
    return "running" if events.last(said, events.Started) else "starting"


def stop(job: Job) -> None:
    """Ask for the end after the current step; a job that has not begun ends at once. Twice is as good as once."""
    with processes.one_launcher(job.folder):
        if status(job) == "queued":
            events.append(job.log, events.Stopped(step=0))
        else:
            job.stop_file.touch()


def end(job: Job) -> None:
    """End the job at once, with all that it has started, for a person who does not want to wait for its next step.

    What it has not saved is lost; its checkpoints are not. Nothing happens to a job that has ended.
    """
    with processes.one_launcher(job.folder):
        worker = processes.read(job.folder)
        if status(job) not in ALIVE or worker is None:
            return
        worker.signal_all(signal.SIGKILL)
        reached = events.last(events.read(job.log), events.Stepped)
        events.append(job.log, events.Stopped(step=reached.step if reached else 0))


def start(job: Job, secrets: dict[str, str] | None = None) -> None:
    """Launch the worker of a job. Raises BusyError while one works on the folder.

    Secrets (the Hub token) go through a pipe: never an argument, a file or the environment.
    """
    with processes.one_launcher(job.folder):
        if status(job) in ALIVE:
            raise BusyError(f"A {job.kind} job already works on this run. Wait for it, or stop it first.")
        job.stop_file.unlink(missing_ok=True)
        _launch(job, secrets or {})


def request(job: Job, choices: str, secrets: dict[str, str] | None = None) -> None:
    """Ask anew for a merge, a GGUF file or a push: its choices (YAML) are written, its log begins afresh, its worker starts."""
    job.folder.mkdir(exist_ok=True)
    with processes.one_launcher(job.folder):
        if status(job) in ALIVE:
            raise BusyError(f"A {job.kind} job already works on this run. Wait for it to end.")
        (job.folder / processes.FILE).unlink(missing_ok=True)
        job.stop_file.unlink(missing_ok=True)
        job.log.unlink(missing_ok=True)
        (job.folder / "request.yaml").write_text(choices, encoding="utf-8")
        events.append(job.log, events.Queued())
        _launch(job, secrets or {})


def _launch(job: Job, secrets: dict[str, str]) -> None:
    owner = runs.owner_of_job(job.folder)
    secrets = credentials.handed_over(owner, secrets)
    with output.into(job.folder / "worker.log", secrets.values()) as log:
        process = subprocess.Popen(
            [sys.executable, "-m", f"studio.engine.{job.kind}", str(job.folder)],
            cwd=PROJECT, env=credentials.environment(owner), stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT,
            start_new_session=True)
    processes.write(job.folder, processes.of(process.pid))
    try:
        process.stdin.write(json.dumps(secrets).encode())
        process.stdin.close()
    except BrokenPipeError:
        pass  # it died already; its status says so
    # Somebody must wait for the child, or it stays a zombie that still looks alive.
    threading.Thread(target=_attend, args=[process, job.folder], daemon=True).start()


def _attend(process: subprocess.Popen, folder: Path) -> None:
    """Wait for a worker's end and note how it came about, which nobody can tell afterwards."""
    code = process.wait()
    with suppress(OSError):  # the folder may have gone
        (folder / EXIT).write_text(json.dumps({"pid": process.pid, "code": code}), encoding="utf-8")


def exit_code(job: Job) -> int | None:
    """How the job's last worker ended: its code, or the signal's number below zero; None while it lives, or if nobody saw it."""
    worker = processes.read(job.folder)
    try:
        noted = json.loads((job.folder / EXIT).read_text(encoding="utf-8"))
        return noted["code"] if worker is not None and noted["pid"] == worker.pid and isinstance(noted["code"], int) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


class Queue:
    """A thread that starts the oldest queued run of a studio's rooms whenever none is alive in any of them.

    The queue itself is the runs whose log says Queued and that have no worker yet, so it survives a restart.
    Tokens do not: they are kept in memory, for chat and merge of a gated base want them again, until the page process ends.
    """

    def __init__(self, home: Path, poll_seconds: float = 0.5, before_start: Callable[[], None] = lambda: None):
        """`before_start` is called before each start: whoever holds memory for comfort can let go of it."""
        self.home, self.poll_seconds, self.before_start = home, poll_seconds, before_start
        self._logs = Logs(only=events.STANDING)
        self._secrets: dict[Run, dict[str, str]] = {}
        self._over: set[Run] = set()
        self._leaving: dict[processes.Worker, float] = {}
        self._wake, self._closed = threading.Event(), False
        self._thread = threading.Thread(target=self._watch, daemon=True, name="queue")

    def open(self) -> "Queue":
        """Begin to watch. Returns itself."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop watching; workers go on."""
        self._closed = True
        self._wake.set()
        self._thread.join(timeout=10)

    def add(self, settings, secrets: dict[str, str] | None = None, room: Path | None = None, once_within: float = 0.0) -> Run:
        """Create a run in a room, home without one; it starts as soon as none is alive.

        A run of the same settings that was asked for in that room so few seconds ago and has not ended is that run:
        a button pressed twice, or in two tabs, starts one.
        """
        room = room or self.home
        self.home.mkdir(parents=True, exist_ok=True)
        with self.alone():
            same = (run for run in self.unfinished() if run.folder.parent == room and abs(time.time() - run.created) < once_within
                    and run.settings == settings)
            if run := next(same, None) if once_within else None:
                return run
            run = runs.create(room, settings)
            self._secrets[run] = secrets or {}  # before anybody can start it
        self._wake.set()
        return run

    def resume(self, run: Run, secrets: dict[str, str] | None = None) -> None:
        """Let a run that has ended go on from its newest checkpoint, as soon as none is alive. Raises StudioError."""
        job = of(run)
        with processes.one_launcher(job.folder):
            if status(job) not in OVER:
                raise BusyError("This run has not ended yet. Wait for it, or stop it first.")
            if run.last_checkpoint is None:
                raise StudioError("This run has no checkpoint to go on from. Start a new run with its settings.")
            (job.folder / processes.FILE).unlink(missing_ok=True)
            job.stop_file.unlink(missing_ok=True)
            self._secrets[run] = secrets or self.secrets(run)  # before the log lets it be started
            events.append(job.log, events.Queued())
        self._over.discard(run)
        self._wake.set()

    def secrets(self, run: Run) -> dict[str, str]:
        """What was handed over with a run; nothing for one that another page process took in."""
        return self._secrets.get(run, {})

    def alone(self):
        """Context in which nobody else starts anything on these runs, over all threads and servers."""
        return processes.one_launcher(self.home)

    def unfinished(self) -> dict[Run, Status | None]:
        """The runs that are alive or wait, newest first, each with its status."""
        states = {run: status(of(run), self._logs.read(of(run).log))
                  for run in runs.everywhere(self.home) if run not in self._over}
        over = {run for run, state in states.items() if state in OVER}
        for run in over:
            if worker := processes.read(run.folder):
                self._leaving.setdefault(worker, time.monotonic())
        self._over |= over
        return {run: state for run, state in states.items() if state not in OVER}

    def waiting(self) -> list[Run]:
        """The runs that wait for their turn, the next one first."""
        return line.ordered([run for run, state in self.unfinished().items() if state == "queued"])

    def forward(self, run: Run, past: Callable[[Run], bool] = lambda other: True) -> None:
        """Let a waiting run start before the one that is before it, if it may be passed. Raises BusyError."""
        with self.alone():
            waiting = self.waiting()
            place = waiting.index(run) if run in waiting else 0
            if place and not past(waiting[place - 1]):
                raise BusyError("The run before it is somebody else's, and only an administrator may pass it.")
            line.forward(run, waiting)

    def see_off(self) -> None:
        """End workers that have said their last word and do not leave."""
        for worker, since in list(self._leaving.items()):
            if not worker.alive:
                del self._leaving[worker]
            elif time.monotonic() - since > LINGERS_SECONDS:
                worker.signal_all(signal.SIGKILL)

    def _watch(self) -> None:
        while not self._closed:
            try:
                self.advance()
                self.see_off()
            except OSError as error:  # a full or vanished disk must not end the watch
                print(f"The queue could not advance: {error}. It tries again.", file=sys.stderr)
            self._wake.wait(self.poll_seconds)
            self._wake.clear()

    def advance(self) -> Run | None:
        """Start the next waiting run if none is alive and no steps are being tried. Returns the run that was started."""
        if not self.home.is_dir():
            return None
        with self.alone():
            states = self.unfinished()
            if any(state in ALIVE for state in states.values()) or any(status(trial_of(room)) in ALIVE for room in runs.rooms(self.home)):
                return None
            waiting = line.ordered([run for run, state in states.items() if state == "queued"])
            if not waiting:
                return None
            run = waiting[0]
            self.before_start()
            try:
                start(of(run), self.secrets(run))
            except (StudioError, OSError) as error:
                events.append(of(run).log, events.Failed(reason=f"The worker could not be started: {error}. Start it again."))
            return run
