"""What a worker can say: frozen events, appended one JSON line each, read without trusting the last line.

The log is the only thing a worker tells the page. It knows nothing of runs, status or charts.
"""

import json
import os
import re
import stat
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from studio import event_fields, whole

FILE = "events.jsonl"
AT_ONCE = 64 * 2**20
"""Bytes of a log that one look reads at most; the next look goes on. No event is as long."""


@dataclass(frozen=True)
class Event:
    """Something that happened. `at` is seconds since the epoch, given when the event is made."""

    at: float = field(default_factory=time.time, kw_only=True)


@dataclass(frozen=True)
class Queued(Event):
    """The page asked for the job; it waits for its turn."""


@dataclass(frozen=True)
class Started(Event):
    """The worker lives. `device` is what it computes on: "cpu", a card's name, or empty if it does not; `versions` of the libraries."""

    device: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Entered(Event):
    """A phase began: downloading, loading, tokenizing, training, evaluating, saving, merging, pushing ..."""

    phase: str


@dataclass(frozen=True)
class Progressed(Event):
    """`done` of `total` units of the present phase (bytes, rows, files)."""

    done: int
    total: int
    unit: str


@dataclass(frozen=True)
class Noted(Event):
    """Something a person should know, in one sentence: rows left out, a setting that was adapted."""

    text: str


@dataclass(frozen=True)
class Gathered(Event):
    """Base and pairs, for the card: the base's licence as its own card states it, `commits` of Hub datasets by name,
    `languages` of the better answers with their number among `looked_at`."""

    licence: dict[str, str]
    commits: dict[str, str]
    languages: dict[str, int]
    looked_at: int


@dataclass(frozen=True)
class Planned(Event):
    """The run's size before its first step: pairs to train on and held out, optimizer steps; and the chat template's seal.

    `system` is the system prompt that all pairs have, empty where they do not have the same; None in runs of older versions.
    `rules` and `moment` (ISO 8601, local time) are those of `studio.begun`; steps between two measurements, 0 for none. Logs of
    older versions have none of the three.
    """

    pairs: int
    held_out: int
    steps: int
    template: str = ""
    system: str | None = None
    rules: int = 1
    moment: str = ""
    measure_every: int = 0


@dataclass(frozen=True)
class Stepped(Event):
    """An optimizer step was taken. Metrics carry TRL's names; memory is the worker's peak in bytes."""

    step: int
    metrics: dict[str, float | None]
    memory: int = 0


@dataclass(frozen=True)
class Checkpointed(Event):
    """All that the next step depends on is sealed on disk."""

    step: int


@dataclass(frozen=True)
class Resumed(Event):
    """The run goes on after this step; what was said of later ones is void, and they are taken again."""

    step: int


@dataclass(frozen=True)
class Repaired(Event):
    """Memory ran out after this step and the run helped itself; it goes on with these passes, and `text` says what changed.
    `budget` is the most tokens of a pass; the first `recomputed` layers are recomputed.
    Older versions wrote n for every nth layer."""

    step: int
    text: str
    budget: int
    recomputed: int


@dataclass(frozen=True)
class Evaluated(Event):
    """The held-out pairs were measured at this step. `model` is "base" or "tuned"; names as in training. `margins` are the
    reward margins pair by pair, in the order of held_out.jsonl; only before and after all steps."""

    step: int
    model: str
    metrics: dict[str, float | None]
    margins: Sequence[float | None] = ()


@dataclass(frozen=True)
class Sampled(Event):
    """The answers to one fixed prompt, base beside tuned."""

    step: int
    prompt: str
    base: str
    tuned: str


@dataclass(frozen=True)
class Tried(Event):
    """Two real steps were taken on the longest pairs: seconds of one, the worker's peak in bytes. `pairs` a run would learn from,
    `longest` of them in tokens; tokens of one step, and of all pairs together."""

    seconds: float
    memory: int
    pairs: int
    longest: int
    step_tokens: int
    all_tokens: int


@dataclass(frozen=True)
class Saved(Event):
    """A result is whole on disk. `path` is relative to the job's folder."""

    step: int
    path: str


@dataclass(frozen=True)
class Pushed(Event):
    """The Hub took the upload in one commit, at `url`."""

    repo: str
    url: str


@dataclass(frozen=True)
class Finished(Event):
    """The job did all it was asked for."""


@dataclass(frozen=True)
class Stopped(Event):
    """The job ended early because it was asked to; what it had learned is saved."""

    step: int


@dataclass(frozen=True)
class Failed(Event):
    """The job could not go on. `reason` is two sentences; the traceback is in worker.log."""
    reason: str


KINDS = {cls.__name__: cls for cls in Event.__subclasses__()}
LAST_WORDS = (Finished, Stopped, Failed)
STANDING = (Queued, Started, *LAST_WORDS)
"""What says where a job stands; all else is what it does meanwhile."""

_NAMED = re.compile(rb'\{"event": "(\w+)"')


def append(path: Path, event: Event) -> None:
    """Add one line to the log with a single write, so that concurrent readers see a prefix of it.

    Numbers that JSON cannot hold (nan, inf) become null: a gap in a chart, never a zero.
    A torn line that a killed writer left behind is closed first, so that it spoils nothing but itself.
    """
    line = json.dumps({"event": type(event).__name__, **event_fields.finite(asdict(event))}, ensure_ascii=True, allow_nan=False)
    with open(path, "ab+") as log:
        torn = log.seek(0, os.SEEK_END) > 0 and _last_byte(log) != b"\n"
        log.write((b"\n" if torn else b"") + line.encode() + b"\n")


def _last_byte(log) -> bytes:
    log.seek(-1, os.SEEK_END)
    return log.read(1)


class Log:
    """A reader that parses each line once: `read()` gives all events so far, in order.

    The last line waits until its newline is there; a line that is not ours is skipped and counted in `damaged`.
    With `only`, events of other kinds are passed over unparsed, except the first of all.
    """

    def __init__(self, path: Path, only: tuple[type[Event], ...] | None = None):
        self.path, self.only = path, only
        self.damaged = 0
        self._events: list[Event] = []
        self._offset = 0
        self._file: int | None = None

    @property
    def replaced(self) -> bool:
        """Whether the file is no longer the one that was read: a job that is asked for anew begins a new log."""
        try:
            found = self.path.stat()
        except OSError:
            return self._file is not None
        return self._file not in (None, found.st_ino) or found.st_size < self._offset

    def read(self) -> list[Event]:
        """All events, oldest first. The list is the log's own: read it, do not change it."""
        try:
            with open(self.path, "rb", opener=whole.at_once) as log:
                found = os.fstat(log.fileno())
                if not stat.S_ISREG(found.st_mode):
                    return self._events
                self._file = found.st_ino
                log.seek(self._offset)
                fresh = log.read(AT_ONCE)
        except OSError:  # not there, or a folder, a link or a pipe in its place
            return self._events
        end = fresh.rfind(b"\n") + 1
        if not end and len(fresh) == AT_ONCE:  # no line of ours
            end, fresh = AT_ONCE, b"?\n"
        self._offset += end
        for line in fresh[:end].splitlines():
            if self._passes_over(line):
                continue
            event = parse(line)
            if event is not None:
                self._events.append(event)
            elif line.strip():
                self.damaged += 1
        return self._events

    def _passes_over(self, line: bytes) -> bool:
        if self.only is None or not self._events:
            return False
        named = _NAMED.match(line)
        return named is not None and KINDS.get(named[1].decode()) not in self.only


def parse(line: bytes) -> Event | None:
    """The event a line holds, or None for one that no version of ours has written."""
    try:
        record = json.loads(line)
        kind = KINDS[record.pop("event")]
        known = event_fields.known(kind, record)
        return kind(**known) if event_fields.fit(kind, known) else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None


def read(path: Path) -> list[Event]:
    """All events of a log, read afresh."""
    return Log(path).read()


def last(events: list[Event], kind: type) -> Event | None:
    """The newest event of a kind (a class or a tuple of classes), or None."""
    return next((event for event in reversed(events) if isinstance(event, kind)), None)
