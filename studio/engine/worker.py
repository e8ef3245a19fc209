"""The shell of every job: whatever happens inside, the log says how it ended."""

import json
import os
import select
import signal
import stat
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from studio import credentials, events, gpu, processes, pulse, unfinished
from studio.engine import bounds, space, turn
from studio.engine.stopping import Stopping, leave, led_to
from studio.errors import StudioError, disk_is_full, explain
from studio.redaction import redact
from studio.remote_code import SECRET

SILENT = {"HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "true",
          "HF_HUB_DISABLE_PROGRESS_BARS": "0", "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
          # Passes vary in size, which would fragment GPU memory.
          "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}


PROGRESS_SECONDS = 0.5
"""Progress is said no more often than a page looks."""
STANDARD_OUTPUTS = (1, 2)
PATIENCE = 3
"""So many times HF_HUB_DOWNLOAD_TIMEOUT (10 s, if nobody has set it) the Hub may stay silent: a commit takes its time."""


@dataclass
class Desk:
    """What a job works with: its folder, a way to say things, the secrets it was handed."""

    folder: Path
    secrets: dict[str, str] = field(default_factory=dict, repr=False)
    finishes: frozenset[str] = frozenset()
    """Phases that the job does not leave when it is asked to stop: it sees to its end in them by itself."""
    listeners: list[Callable[[events.Event], None]] = field(default_factory=list, repr=False)
    """Each is called with every event that is said, once it is in the log."""
    _progress_said: float = 0.0

    @cached_property
    def stopping(self) -> Stopping:
        """The wish that the job may end."""
        return Stopping(self.folder, self.finishes)

    def say(self, event: events.Event) -> None:
        """Append an event to the job's log, with every secret in its texts blotted out."""
        told = {name: redact(value, self.secrets.values()) for name, value in vars(event).items() if isinstance(value, str)}
        event = replace(event, **told)
        with self.stopping.undisturbed():
            events.append(self.folder / events.FILE, event)
            for listener in self.listeners:
                listener(event)

    def enter(self, phase: str) -> None:
        """Say that a phase begins. Raises StopRequested instead where the job was asked to stop and need not finish that phase."""
        if phase not in self.finishes:
            self.stopping.heed()
        self.stopping.phase = phase
        self.say(events.Entered(phase))
        self.stopping.heed()

    def progress(self, done: int, total: int, unit: str) -> None:
        """Say how far the present phase is, unless that was said a moment ago; its end is always said.

        Raises StopRequested where the job was asked to stop.
        """
        self.stopping.heed()
        now = time.monotonic()
        if done >= total or now - self._progress_said >= PROGRESS_SECONDS:
            self._progress_said = now
            self.say(events.Progressed(done, total, unit))

    @property
    def asked_to_stop(self) -> bool:
        return self.stopping.is_asked_for

    @property
    def consent(self) -> frozenset[str]:
        """The hashes of models' own code that a person has looked at and allowed to run."""
        return frozenset(self.secrets.get(SECRET, "").split())

    @property
    def token(self) -> str | None:
        """The Hub token that was handed over, if any."""
        return self.secrets.get("token")


def work(task: Callable[[Desk], events.Event | None], computes_on: Callable[[Desk], str] | None = None,
         finishes: Iterable[str] = ()) -> int:
    """Run one job as this process: `python -m studio.engine.<kind> FOLDER`, secrets as JSON on standard input.

    The task returns its last event, or None for Finished. `computes_on` names the device of a task that computes, which first waits
    for its turn. Asked to stop, the task ends in any phase except those it `finishes`. Returns the exit code: 1 when it failed.
    """
    folder, secrets = Path(sys.argv[1]), _secrets()
    if secrets is None:
        return _leave_to_another(folder)
    lock = processes.take(folder)
    if lock is None:
        print(f"Another worker works on {folder.name} already; this one leaves.", file=sys.stderr)
        return 0
    with processes.one_launcher(folder):  # whatever a page wrote down that has launched another one, or died before it could
        processes.write(folder, processes.me())
    with closing(lock):
        return _work(Desk(folder, secrets, frozenset(finishes)), task, computes_on)


def _leave_to_another(folder: Path) -> int:
    """The page that launched this worker died before it handed over the token: the job waits as before, for another worker."""
    with processes.one_launcher(folder):
        noted = processes.read(folder)
        if noted is not None and noted.pid == os.getpid():
            (folder / processes.FILE).unlink(missing_ok=True)
    print("Nothing was handed over: the page ended meanwhile. Another worker is launched for this job.", file=sys.stderr)
    return 0


def _work(desk: Desk, task: Callable[[Desk], events.Event | None], computes_on: Callable[[Desk], str] | None) -> int:
    # SIGTERM (a container that stops, a systemd unit) ends the step, not the work.
    signal.signal(signal.SIGTERM, lambda *_: (desk.folder / "stop").touch())
    threading.Thread(target=_beat, args=[desk.folder], daemon=True, name="pulse").start()
    threading.Thread(target=_outlive_the_log, daemon=True, name="output").start()
    unfinished.clear(desk.folder)
    space.set_aside(desk.folder)
    _limit_silence()
    desk.stopping.watch(lambda: _last_resort(desk))
    bounds.ends_with(partial(_fail, desk))
    try:
        if computes_on:
            _refuse_several_processes()
            gpu.take_one()
        desk.say(events.Started(device=computes_on(desk) if computes_on else "", versions=_versions()))
        lock = turn.take(desk.folder, task.__name__, _waiting(desk)) if computes_on else None
        stopped = computes_on and lock is None and desk.asked_to_stop
        last_word = events.Stopped(step=0) if stopped else task(desk) or events.Finished()
        desk.stopping.over()
        desk.say(last_word)
        return 0
    except BaseException as error:  # also SystemExit and KeyboardInterrupt: the log must not end without a word
        desk.stopping.over()
        space.use_up(desk.folder)
        if led_to(error):
            desk.say(_stopped(desk))
            leave()
        with suppress(OSError):
            print(redact(traceback.format_exc(), desk.secrets.values()), file=sys.stderr, flush=True)
        full = disk_is_full(error) and not isinstance(error, StudioError)
        desk.say(events.Failed(reason=space.in_words(desk.folder) if full else explain(error, **_repo(error))))
        return 1
    finally:
        space.use_up(desk.folder)


def _stopped(desk: Desk) -> events.Stopped:
    """The last word of a job that was left where it was: the last step whose result is kept."""
    said = events.read(desk.folder / events.FILE)
    reached = events.last(said, (events.Stepped, events.Resumed))
    return events.Stopped(step=reached.step if reached else 0)


def _last_resort(desk: Desk) -> None:
    """What a job says that is ended in the middle of a library's call; of what it was making nothing is left."""
    unfinished.clear(desk.folder)
    space.use_up(desk.folder)
    desk.say(_stopped(desk))


def _fail(desk: Desk, words: str) -> None:
    """The last words of a process that is ended while it works on something that does not come back."""
    desk.stopping.over()
    space.use_up(desk.folder)
    desk.say(events.Failed(reason=words))
    bounds.leave(1)


def _outlive_the_log() -> None:
    """Print into nothing from when nobody reads it any more: what a library says in passing is not worth a run."""
    watched = select.poll()
    for end in STANDARD_OUTPUTS:
        watched.register(end, 0)  # nothing but that the other end is gone
    watched.poll()
    nothing = os.open(os.devnull, os.O_WRONLY)
    for end in STANDARD_OUTPUTS:
        os.dup2(nothing, end)


def _limit_silence() -> None:
    """Let no request to the Hub wait for ever, as its client by itself does: it says so with each of them."""
    from huggingface_hub import constants, get_session

    def limit(request) -> None:
        limits = request.extensions.get("timeout") or dict.fromkeys(("connect", "read", "write", "pool"))
        request.extensions["timeout"] = {kind: seconds or PATIENCE * constants.HF_HUB_DOWNLOAD_TIMEOUT for kind, seconds in limits.items()}

    client = get_session()
    client.event_hooks["request"].append(limit)


def _waiting(desk: Desk) -> Callable[[str], bool]:
    """Says once that somebody else computes; goes on waiting until it is asked to stop."""
    told: list[str] = []

    def waits(holder: str) -> bool:
        if not told:
            told.append(holder)
            desk.enter("waiting")
            desk.say(events.Noted(f"Waits for its turn: {holder} is at work in this studio."))
        return not desk.asked_to_stop

    return waits


def _beat(folder: Path) -> None:
    """Count up in a file for as long as this process can do anything: whoever sees it stand still knows that it hangs."""
    beats = 0
    while True:
        beats += 1
        with suppress(OSError):
            (folder / pulse.FILE).write_text(str(beats), encoding="utf-8")
        time.sleep(pulse.BEAT_SECONDS)


def _secrets() -> dict[str, str] | None:
    """The secrets from the pipe; None where its other end was closed before anything came.

    A person who runs a job by hand in a terminal hands over none but this machine's login.
    """
    if sys.stdin is None or sys.stdin.isatty():
        return credentials.handed_over("", {})
    text = sys.stdin.read()
    if text.strip():
        return json.loads(text)
    return None if stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode) else {}


def _repo(error: BaseException) -> dict[str, str]:
    """The repository an error is about, where somebody attached its name with `about`."""
    name = getattr(error, "studio_repo", None)
    return {"repo": name} if name else {}


class about:
    """Context that attaches a repository's name to whatever error passes, for its explanation."""

    def __init__(self, repo: str):
        self.repo = repo

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, trace) -> bool:
        if error is not None and not hasattr(error, "studio_repo"):
            error.studio_repo = self.repo
        return False


def _refuse_several_processes() -> None:
    """Raises StudioError under torchrun and the like: each process would train its own adapter, and only one would be kept."""
    count = os.environ.get("WORLD_SIZE", "1")
    if count not in ("", "1"):
        raise StudioError(f"This run was started as {count} processes (WORLD_SIZE), and a run computes on one card. "
                          "Start it without torchrun, or unset WORLD_SIZE.")


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "transformers", "peft", "bitsandbytes")}


os.environ.update({name: os.environ.get(name, value) for name, value in SILENT.items()})
