"""The list of a studio's runs: each run is read for itself, and read again only when something of it has changed.

All pages, the queue and scripts share one index. A look at a room takes three questions to the file system for each of its
runs; only what those say has changed is opened. What cannot be read as a run is listed too, with the reason.
"""

import os
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from studio import about, events, runs
from studio.errors import StudioError
from studio.events import Event
from studio.logs import Logs
from studio.runs import Run

JUST_NOW = 2 * 10**9
"""Nanoseconds. A file that changed so lately may change again without another time of change, on a coarse file system."""
SETTLED = ("finished", "stopped", "failed", "crashed")
Mark = tuple[tuple[int, ...], ...]
"""What tells one state of a run's files from another."""


@dataclass(frozen=True)
class Entry:
    """One folder of a room. `status` is what `jobs.status` says; `reason` why it cannot be read as a run, empty where it can."""

    run: Run
    created: float
    title: str = ""
    status: str | None = None
    reason: str = ""


class Index:
    """What is known of the runs of all rooms below `home`. `status_of` says where a run stands, given the events of its log."""

    def __init__(self, home: Path, status_of: Callable[[Run, list[Event]], str | None], clock: Callable[[], int] = time.time_ns):
        self.home, self._status_of, self._clock = home, status_of, clock
        self._logs = Logs(only=events.STANDING)
        self._known: dict[str, dict[str, tuple[Mark, Entry]]] = {}
        self._looked: dict[Path, tuple[float, list[Entry]]] = {}
        self._looking = threading.RLock()

    def entries(self, room: Path, within: float = 0.0) -> list[Entry]:
        """What is in a room, newest first. A look that somebody took within so many seconds is good enough."""
        with self._looking:
            at, found = self._looked.get(room, (-1.0, []))
            if at < 0 or time.monotonic() - at > within:
                at, found = time.monotonic(), self._look(room)
                self._looked[room] = at, found
            return list(found)

    def everywhere(self, within: float = 0.0) -> list[Entry]:
        """What is in all rooms, newest first."""
        found = [entry for room in runs.rooms(self.home) for entry in self.entries(room, within)]
        return sorted(found, key=_age, reverse=True)

    def entry(self, run: Run) -> Entry:
        """What is known of one run now."""
        with self._looking:
            room, name = os.fspath(run.folder.parent), run.name
            return self._entry(room, name, self._known.setdefault(room, {})) or Entry(run, 0.0, reason="its folder is gone")

    def _look(self, room: Path) -> list[Entry]:
        try:
            with os.scandir(room) as there:
                names = [one.name for one in there if runs.may_be_a_run(one.name)]
        except OSError:
            names = []
        place, known = os.fspath(room), self._known.get(os.fspath(room), {})
        self._known[place] = {name: known[name] for name in names if name in known}
        found = [entry for name in names if (entry := self._entry(place, name, self._known[place])) is not None]
        return sorted(found, key=_age, reverse=True)

    def _entry(self, room: str, name: str, kept: dict[str, tuple[Mark, Entry]]) -> Entry | None:
        """One folder's entry; None for one that has nothing of a run. Texts, since joining paths takes longer than asking for them."""
        folder = f"{room}/{name}"
        parts = _stat(folder), _stat(f"{folder}/{runs.SETTINGS}"), _stat(f"{folder}/{events.FILE}")
        if parts[0] is None or not (stat.S_ISLNK(parts[0].st_mode) or parts[1] or parts[2]):
            return None
        mark = tuple(_mark(part) for part in parts)
        known, entry = kept.get(name, (None, None))
        now = self._clock()
        if known == mark and (entry.reason or entry.status in SETTLED) and all(
                abs(now - part.st_mtime_ns) > JUST_NOW for part in parts if part):
            return entry
        if known != mark or entry is None:
            entry = _read(Run(Path(folder)), parts)
        # Also what cannot be read may be at work, and is then not to be forgotten.
        is_folder = stat.S_ISDIR(parts[0].st_mode)
        entry = replace(entry, status=self._standing(entry.run)) if is_folder else entry
        kept[name] = mark, entry
        return entry

    def _standing(self, run: Run) -> str | None:
        try:
            return self._status_of(run, self._logs.read(run.folder / events.FILE))
        except (OSError, ValueError):  # a file of it that cannot be read
            return None


def _read(run: Run, parts: tuple[os.stat_result | None, ...]) -> Entry:
    """What a run's own files say of it."""
    folder, settings, _ = parts
    created = settings.st_mtime if settings else folder.st_mtime
    if stat.S_ISLNK(folder.st_mode):
        return Entry(run, created, reason="is a link that leads elsewhere")
    if settings is None:
        return Entry(run, created, reason=f"holds no {runs.SETTINGS}")
    if not stat.S_ISREG(settings.st_mode):
        return Entry(run, created, reason=f"has something else than a file as its {runs.SETTINGS}")
    try:
        run.stored  # noqa: B018 (read for the reason)
    except StudioError as error:
        return Entry(run, created, reason=str(error).removeprefix("file: "))
    return Entry(run, created, about.of(run).title)


def _age(entry: Entry) -> tuple[float, str]:
    return entry.created, entry.run.name


def _mark(found: os.stat_result | None) -> tuple[int, ...]:
    return (found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode) if found else ()


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None
