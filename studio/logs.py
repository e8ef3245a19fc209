"""The event logs of many jobs, for many threads: each line is parsed once, however many ask.

It remembers what it has read, and no more of it than it is told to: a studio keeps its runs for months.
"""

import threading
from collections import OrderedDict
from pathlib import Path

from studio.events import Event, Log


class Logs:
    """Readers of logs. `only` keeps the events of some kinds; of more than `most` logs the one not asked for longest is forgotten."""

    def __init__(self, only: tuple[type[Event], ...] | None = None, most: int | None = None):
        self.only, self.most = only, most
        self._logs: OrderedDict[Path, Log] = OrderedDict()
        self._reading = threading.Lock()

    def read(self, path: Path) -> list[Event]:
        """The events of a log so far, as a list of the caller's own. A log that was begun afresh is read afresh."""
        with self._reading:
            log = self._logs.get(path)
            if log is None or log.replaced:
                log = self._logs[path] = Log(path, self.only)
            self._logs.move_to_end(path)
            if self.most is not None and len(self._logs) > self.most:
                self._logs.popitem(last=False)
            return list(log.read())

    def damaged(self, path: Path) -> int:
        """How many lines of a log that was just read could not be understood."""
        with self._reading:
            return self._logs[path].damaged if path in self._logs else 0
