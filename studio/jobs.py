"""Start, stop, queue and status of workers.

A job is a folder with an event log; its worker is `python -m studio.engine.<kind> FOLDER` in a session of its own,
so that it outlives the page. Status is worked out from the log's last word and from whether that very process is alive;
it is stored nowhere.
"""

import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from studio import events, launcher, line, processes, runs, shares, whole
from studio.errors import BusyError, StudioError, explain
from studio.run_index import Index
from studio.runs import Run

Status = Literal["queued", "starting", "running", "finished", "stopped", "failed", "crashed"]
ALIVE: tuple[Status, ...] = ("starting", "running")
OVER: tuple[Status, ...] = ("finished", "stopped", "failed", "crashed")

EXIT, PROJECT = launcher.EXIT, launcher.PROJECT
WITHOUT_TOKEN = ("A Hub token that was entered with this run, or a permission for its model's own code, was kept in the memory of a studio "
                 "that has ended. The run begins without it; if its model or data need it, start a new run with its settings.")
LINGERS_SECONDS = 20.0
"""How long a worker that has said its last word may take to leave, before it is ended: it would keep others from computing."""


@dataclass(frozen=True)
class Job:
    """A kind of work on a folder: train on the run's own, merge, gguf and push inside it; beside the runs two steps and examine,
    and export inside an examination's."""

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
    if worker is None and not processes.is_taken(job.folder):  # by one whose page died before it wrote it down
        return "queued"
    alive = "running" if events.last(said, events.Started) else "starting"
    return alive if worker is None or worker.alive else "crashed"


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


class NoLongerWaitingError(StudioError):
    """The job was cancelled, or has ended, while it was about to be started."""


def start(job: Job, secrets: dict[str, str] | None = None) -> None:
    """Launch the worker of a job that waits. Raises BusyError while one works on the folder, NoLongerWaitingError once it has ended.

    Secrets (the Hub token) go through a pipe: never an argument, a file or the environment.
    """
    with processes.one_launcher(job.folder):
        standing = status(job)
        if standing in ALIVE:
            raise BusyError(f"A {job.kind} job already works on this run. Wait for it, or stop it first.")
        if standing in OVER:
            raise NoLongerWaitingError("This run was stopped before it began. Start a new one with its settings.")
        job.stop_file.unlink(missing_ok=True)
        launcher.launch(job.kind, job.folder, secrets or {})


def request(job: Job, choices: str, secrets: dict[str, str] | None = None) -> None:
    """Ask anew for a merge, a GGUF file or a push: its choices (YAML) are written, its log begins afresh, its worker starts."""
    shares.refuse_another_process(job.folder)
    try:
        job.folder.mkdir(exist_ok=True)
        with processes.one_launcher(job.folder):
            if status(job) in ALIVE:
                raise BusyError(f"A {job.kind} job already works on this run. Wait for it to end.")
            (job.folder / processes.FILE).unlink(missing_ok=True)
            job.stop_file.unlink(missing_ok=True)
            job.log.unlink(missing_ok=True)
            whole.write(job.folder / "request.yaml", choices)
            events.append(job.log, events.Queued())
            launcher.launch(job.kind, job.folder, secrets or {})
    except OSError as error:
        reason = f"The worker could not be started. {explain(error)}"
        with suppress(OSError):
            events.append(job.log, events.Failed(reason=reason))
        raise StudioError(reason) from error


def exit_code(job: Job) -> int | None:
    """How the job's last worker ended: its code, or the signal's number below zero; None while it lives, or if nobody saw it."""
    return launcher.exit_code(job.folder)


class Queue:
    """A thread that starts the oldest queued run of a studio's rooms whenever none is alive in any of them.

    The queue itself is the runs whose log says Queued and that have no worker yet, so it survives a restart.
    Tokens do not: they are kept in memory, for chat and merge of a gated base want them again, until the page process ends.
    """

    def __init__(self, home: Path, poll_seconds: float = 0.5, before_start: Callable[[], None] = lambda: None):
        """`before_start` is called before each start: whoever holds memory for comfort can let go of it."""
        self.home, self.poll_seconds, self.before_start = home, poll_seconds, before_start
        self.index = Index(home, lambda run, said: status(of(run), said))
        self._secrets: dict[Run, dict[str, str]] = {}
        self._given_up: dict[Run, str] = {}
        self._seen_off: set[Run] = set()
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
            for run in self.unfinished() if once_within else ():
                if run.folder.parent == room and abs(time.time() - run.created) < once_within and run.settings == settings:
                    return run
            try:
                run = runs.create(room, settings, processes.me() if secrets else None)
            except OSError as error:
                raise StudioError(f"The run could not be written to {room}. {explain(error)}") from error
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
            processes.note_keeper(run.folder, bool(self.secrets(run)))
            events.append(job.log, events.Queued())
        self._given_up.pop(run, None)
        self._wake.set()

    def secrets(self, run: Run) -> dict[str, str]:
        """What was handed over with a run; nothing for one that another page process took in."""
        return self._secrets.get(run, {})

    def alone(self):
        """Context in which nobody else starts anything on these runs, over all threads and servers."""
        return processes.one_launcher(self.home)

    def trouble(self, run: Run) -> str:
        """Why a run that waits was not started and will not be, where that could not even be written into its log."""
        return self._given_up.get(run, "")

    def unfinished(self) -> dict[Run, Status | None]:
        """The runs that are alive or wait, newest first, each with its status. One that cannot be read does not wait."""
        entries = self.index.everywhere()
        for entry in entries:
            if entry.status in OVER and entry.run not in self._seen_off and (worker := processes.read(entry.run.folder)):
                self._leaving.setdefault(worker, time.monotonic())
        self._seen_off = {entry.run for entry in entries if entry.status in OVER}
        return {entry.run: entry.status for entry in entries
                if entry.status in ALIVE or (entry.status not in OVER and not entry.reason and entry.run not in self._given_up)}

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
                self._write_down_what_was_given_up()
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
            if processes.is_kept_by_another(run.folder):
                return None  # its token is in the memory of another server on this folder, which starts it
            self.before_start()
            return self._start(run)

    def _start(self, run: Run) -> Run | None:
        """Start a run, once: what goes wrong is its end, so that no worker is launched again and again."""
        try:
            if processes.has_lost_its_keeper(run.folder) and not self.secrets(run):
                events.append(of(run).log, events.Noted(WITHOUT_TOKEN))
            start(of(run), self.secrets(run))
        except NoLongerWaitingError:
            return None
        except (StudioError, OSError) as error:
            reason = f"The worker could not be started: {explain(error)} Start it again."
            self._given_up[run] = reason
            self._write_down_what_was_given_up()
        return run

    def _write_down_what_was_given_up(self) -> None:
        """Say in their logs of which runs no worker could be started; on a full disk that has to wait for room."""
        for run, reason in list(self._given_up.items()):
            with suppress(FileNotFoundError), processes.one_launcher(run.folder):  # it may have been thrown away
                if status(of(run)) not in OVER:
                    events.append(of(run).log, events.Failed(reason=reason))
            del self._given_up[run]
