"""What a job's log says, read and worked out once per change, however many pages watch it."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from studio.events import Event, Log
from studio.summary import Summary, charted, row

LOGS_KEPT = 16
"""Logs of which all events stay in memory: of the runs that somebody looks at. Ten thousand steps take about 50 MB."""
VIEWS_KEPT = 64
"""Answers worked out from them."""


@dataclass(frozen=True)
class Reading:
    """A log as it was at one moment. `said` is shared: read it, do not change it. `version` is another one after each change."""

    said: list[Event]
    damaged: int
    version: int

    @cached_property
    def summary(self) -> Summary:
        return Summary(self.said)

    @cached_property
    def _charted(self) -> list[Any]:
        return list(charted(self.said))

    @property
    def count(self) -> int:
        """How many rows the charts have."""
        return len(self._charted)

    def points(self, have: int = 0) -> dict[str, Any]:
        """The rows of the charts from index `have` on, and how many there are in all."""
        return {"rows": [row(event) for event in self._charted[max(0, have):]], "total": self.count}


class Readings:
    """The readings of the logs looked at last, for many threads."""

    def __init__(self, most: int = LOGS_KEPT):
        self.most = most
        self._kept: OrderedDict[Path, tuple[Log, Reading]] = OrderedDict()
        self._versions = 0
        self._reading = threading.Lock()

    def of(self, path: Path) -> Reading:
        """The log as it is now; the same object for as long as nothing has changed. A log that was begun afresh is read afresh."""
        with self._reading:
            log, before = self._kept.get(path, (None, None))
            if log is None or log.replaced:
                log, before = Log(path), None
            said = log.read()
            if before is None or (len(said), log.damaged) != (len(before.said), before.damaged):
                self._versions += 1
                before = Reading(list(said), log.damaged, self._versions)
            self._kept[path] = log, before
            self._kept.move_to_end(path)
            if len(self._kept) > self.most:
                self._kept.popitem(last=False)
            return before


class Views:
    """Answers by all that they depend on: worked out for the first who asks, handed to the others."""

    def __init__(self, most: int = VIEWS_KEPT):
        self.most = most
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, key: Hashable, work_out: Callable[[], Any]) -> Any:
        """The answer for a key. Two who ask at the same moment may both work it out; what it raises is not kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        answer = work_out()
        with self._lock:
            self._kept[key] = answer
            if len(self._kept) > self.most:
                self._kept.popitem(last=False)
        return answer
