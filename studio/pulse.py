"""Whether a worker still does anything: it counts up in a file, and the page looks how long the count has stood still."""

import time
from collections.abc import Callable
from pathlib import Path

from studio import whole

FILE = "pulse"
BEAT_SECONDS = 5.0
SILENCE = 60.0
"""Seconds without a beat after which a worker is said to hang. It is shown as such, and goes on when it can."""


class Pulse:
    """Watches the counts of many workers by the clock of this process: files' times and the machine's date do not matter."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._seen: dict[Path, tuple[str, float]] = {}

    def silence(self, folder: Path) -> float:
        """Seconds for which the count in a job's folder is known to have stood still; 0 when it is seen for the first time."""
        try:
            count = whole.read_utf8(folder / FILE)
        except (OSError, ValueError):
            count = ""
        now = self._clock()
        before, since = self._seen.get(folder, (None, now))
        if count != before:
            since = now
        self._seen[folder] = count, since
        return now - since
