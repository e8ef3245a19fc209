"""How a job ends when it is asked to: wherever it looks for that wish, else wherever it happens to be, else at once.

A job looks at every progress it tells and at every phase it enters. A library call that tells nothing is interrupted by a signal
after a moment, as Ctrl-C would interrupt it; a call that no signal interrupts is ended with the process. In phases that are to be
finished, such as a training's steps and the writing of its adapter, none of this happens: there the job itself sees to its end.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

FILE = "stop"
LOOK_SECONDS = 0.25
POLITE_SECONDS, AGAIN_SECONDS, PATIENT_SECONDS = 1.5, 2.0, 6.0
"""After so long without an end the library call is interrupted, and again every so often; after so long the process is ended."""
INTERRUPT = signal.SIGUSR1


class StopRequested(BaseException):  # not an Exception: libraries catch these and go on
    """Somebody pressed Stop."""


class Stopping:
    """The wish that a job may end, as its folder has it. `finishes` are the phases in which the job itself sees to its end."""

    def __init__(self, folder: Path, finishes: frozenset[str] = frozenset()):
        self.folder, self.finishes = folder, finishes
        self.phase = ""
        self._undisturbed = 0

    @property
    def is_asked_for(self) -> bool:
        return (self.folder / FILE).exists()

    @property
    def may_interrupt(self) -> bool:
        """Whether the job may be left where it is now."""
        return not self._undisturbed and self.phase not in self.finishes

    def heed(self) -> None:
        """Raises StopRequested if the job was asked to end and may be left here."""
        if self.may_interrupt and self.is_asked_for:
            raise StopRequested

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Context that is finished first, such as giving a result its name and saying so."""
        self._undisturbed += 1
        try:
            yield
        finally:
            self._undisturbed -= 1

    def over(self) -> None:
        """The last word is about to be said: nothing is interrupted any more."""
        self._undisturbed += 1

    def watch(self, last_resort: Callable[[], None]) -> None:
        """Interrupt the main thread once the job was asked to end and does not; `last_resort` says the last word instead of it."""
        signal.signal(INTERRUPT, self._interrupted)
        threading.Thread(target=self._watch, args=[last_resort, threading.main_thread().ident], daemon=True, name="stop").start()

    def _interrupted(self, *_: object) -> None:
        self.heed()

    def _watch(self, last_resort: Callable[[], None], main: int) -> None:
        since = again = 0.0
        while True:
            time.sleep(LOOK_SECONDS)
            now = time.monotonic()
            if not (self.may_interrupt and self.is_asked_for):
                since = 0.0
            elif not since:
                since, again = now, now + POLITE_SECONDS
            elif now - since >= PATIENT_SECONDS:
                self.over()
                last_resort()
                leave()
            elif now >= again:
                again = now + AGAIN_SECONDS
                signal.pthread_kill(main, INTERRUPT)


def led_to(error: BaseException | None) -> bool:
    """Whether an error is that wish, in the words of a library that it passed through."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, StopRequested):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def leave() -> None:
    """End this process and what it has started, at once: threads of libraries would keep it for as long as they like."""
    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.Error:
            continue
    os._exit(0)
