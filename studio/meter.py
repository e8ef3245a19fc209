"""A Space costs money while it runs: what it has cost since the studio started, and its pause once nothing is left to do."""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from huggingface_hub import HfApi

from studio import account, processes
from studio.errors import StudioError, explain
from studio.hardware import PRICES
from studio.jobs import Queue
from studio.redaction import redact
from studio.summary import duration

LOOK_SECONDS = 20
"""Between two looks at whether anything is at work."""
MINUTES = (5, 24 * 60)
"""The shortest and longest wait that can be chosen."""
NO_BUCKET = ("A paused Space forgets its disk, and with it all runs. Attach a storage bucket and set the variable ORPO_STUDIO_RUNS "
             "to its folder first; then it can be paused.")


@dataclass(frozen=True)
class Armed:
    """What was asked for: whose token pauses the Space, after how many seconds without work."""

    token: str
    seconds: float
    dollars: float | None
    """An hour, as far as the price of this hardware is known."""
    hardware: str

    def __repr__(self) -> str:
        return f"Armed({self.seconds:g} s, {self.hardware})"  # and no token


class Meter:
    """Watches one Space, `space` by its id; elsewhere it is empty and nothing can be armed."""

    def __init__(self, queue: Queue, is_at_work: Callable[[], bool] | None = None, look_seconds: float = LOOK_SECONDS):
        self.space = os.environ.get("SPACE_ID", "")
        self.armed: Armed | None = None
        self.trouble = ""
        """Why the last pause did not come about."""
        self._look_seconds = look_seconds
        self._is_at_work = is_at_work or (lambda: at_work(queue))
        self._began = self._worked = time.monotonic()
        self._closed = threading.Event()
        if self.space:
            threading.Thread(target=self._watch, daemon=True, name="meter").start()

    def arm(self, token: str, minutes: float) -> None:
        """Pause the Space once nothing was at work for so long. Raises StudioError where that cannot be."""
        if not self.space:
            raise StudioError("This studio does not run on a Space. Nothing costs by the hour here.")
        if not os.environ.get("ORPO_STUDIO_RUNS"):
            raise StudioError(NO_BUCKET)
        shortest, longest = MINUTES
        if isinstance(minutes, bool) or not isinstance(minutes, int | float) or not shortest <= minutes <= longest:
            raise StudioError(f"Enter {shortest} to {longest} minutes.")
        secrets = account.entered(token)
        if not secrets:
            raise StudioError("Pausing needs a Hub token with write access to this Space. Enter one.")
        account.refuse_one_that_only_reads(secrets)
        hardware = self._ask("get_space_runtime", secrets["token"]).hardware or ""
        known = next((one for one in PRICES.spaces if one.slug == hardware), None)
        self._worked, self.trouble = time.monotonic(), ""
        self.armed = Armed(secrets["token"], 60 * minutes, known.dollars if known else None, known.name if known else hardware)

    def disarm(self) -> None:
        """Let it run on."""
        self.armed = None

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()

    def in_words(self) -> tuple[str, str]:
        """What there is to say: its kind (warn, bad or info) and the words."""
        runs_for, armed = time.monotonic() - self._began, self.armed
        if armed is None:
            here = PRICES.of_this_space()
            cost = f", at ${here.dollars:.2f} an hour about ${here.dollars * runs_for / 3600:.2f} so far," if here else ""
            return "info", (f"This Space has run for {duration(runs_for)} since the studio started and is billed by the minute{cost} until "
                            "it is paused or sleeps, whether anything is trained or not.")
        cost = f", about ${armed.dollars * runs_for / 3600:.2f} at ${armed.dollars:.2f} an hour" if armed.dollars else ""
        told = f"This Space ({armed.hardware}) has run for {duration(runs_for)} since the studio started{cost}. "
        if self.trouble:
            return "bad", f"{told}It could not be paused: {self.trouble}"
        left = armed.seconds - (time.monotonic() - self._worked)
        when = f"in {duration(max(0, left))} unless something starts" if left < armed.seconds - 2 * self._look_seconds else (
            f"once nothing has been at work for {armed.seconds / 60:g} minutes")
        return "warn", f"{told}It is paused {when}. Whoever may write to it restarts it on its page; the runs stay in the bucket."

    def look(self) -> bool:
        """Pause the Space if its time has come. Returns whether it was asked to."""
        armed = self.armed
        if armed is None or self._is_at_work():
            self._worked = time.monotonic()
            return False
        if time.monotonic() - self._worked < armed.seconds:
            return False
        try:
            self._ask("pause_space", armed.token)
        except StudioError as error:
            self.trouble = f"{error} It is tried again."
            return False
        self.trouble, self.armed = "", None
        return True

    def _ask(self, what: str, token: str):
        try:
            return getattr(HfApi(token=token), what)(self.space)
        except Exception as error:  # whatever the Hub's client raises
            raise StudioError(redact(explain(error, self.space), [token])) from error

    def _watch(self) -> None:
        PRICES.refresh()
        while not self._closed.wait(self._look_seconds):
            with suppress(OSError):  # a folder that vanished while it was looked through must not end the watch
                self.look()


def at_work(queue: Queue) -> bool:
    """Whether anything computes, loads or pushes in any room of a studio, or waits for its turn. Chats are not seen here."""
    if queue.unfinished():
        return True
    found = (processes.read(path.parent) for path in queue.home.rglob(processes.FILE))
    return any(worker is not None and worker.alive for worker in found)
