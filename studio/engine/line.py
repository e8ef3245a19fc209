"""The line between a process that answers and the page: one JSON object a line, in and out.

Nothing heavy is imported here: stdout must be out of the libraries' reach first, and the end of the input heard.
"""

import json
import os
import sys
import threading
from contextlib import suppress
from queue import Empty, SimpleQueue


class Wire:
    """The line out. It takes the true stdout for itself; what anything else prints goes to stderr."""

    def __init__(self):
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def say(self, **message) -> None:
        """Write one line."""
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()


class Inbox:
    """The line in, read by a thread of its own: a cancellation is heard while the model speaks, the end at any time."""

    def __init__(self):
        self._questions: SimpleQueue[dict] = SimpleQueue()
        self._cancelled: set[int] = set()

    def open(self) -> "Inbox":
        """Begin to listen. Returns itself."""
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def next(self, seconds: float) -> dict | None:
        """The next question, or None if there is none for so long."""
        with suppress(Empty):
            return self._questions.get(timeout=seconds)

    def is_cancelled(self, question: int) -> bool:
        return question in self._cancelled

    def _listen(self) -> None:
        try:
            for line in sys.stdin:
                message = json.loads(line)
                if "cancel" in message:
                    self._cancelled.add(message["cancel"])
                else:
                    self._questions.put(message)
        finally:
            os._exit(0)  # nobody is left to talk to, whatever is being loaded or said
