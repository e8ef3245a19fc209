"""A limit on what a process may take while it makes tokens of foreign texts with a foreign tokenizer, and an end when one is asked for.

A tokenizer's normalizing is a program that came with a model: it can multiply a text until the memory is full, or never come back from
one, and no exception reaches it there. So a thread looks on (tokenizers let other threads run meanwhile), and ends the whole process
with words where that happens. Only a process that has said how its last words reach its owner is ever ended.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

ROOM, LEAST = 4 * 2**30, 2**30
"""Bytes that may come on top of what the process had, and that may at least; between them half of the free memory."""
EVERY, PATIENCE = 0.1, 3.0
"""Seconds between two looks; and after which a wish to stop that nobody has heeded ends the process."""


@dataclass(frozen=True)
class Shell:
    """How this process ends: what is done with its last words, and with a wish to stop that `asked` tells of. Both must not return."""

    fail: Callable[[str], None]
    stop: Callable[[], None] = lambda: None
    asked: Callable[[], bool] = lambda: False


_shell: list[Shell] = []
_doing: list[tuple[str, float]] = []
"""What is being done, the outermost first, each with the moment at which it must have ended."""


def ends_with(shell: Shell) -> None:
    """Let this process be ended, in that way, while it does something bounded."""
    _shell[:] = [shell]


@contextmanager
def bounded(what: str, seconds: float = float("inf")) -> Iterator[None]:
    """Within, this process ends with words about `what` where its memory grows too far or `seconds` have passed, and where asked to."""
    if not _shell:
        yield
        return
    _doing.append((what, time.monotonic() + seconds))
    outermost, done = len(_doing) == 1, threading.Event()
    try:
        if outermost:
            room = max(LEAST, min(ROOM, psutil.virtual_memory().available // 2))
            threading.Thread(target=_look_on, args=[done, room], daemon=True, name="bounds").start()
        yield
    finally:
        done.set()
        _doing.pop()


def _look_on(done: threading.Event, room: int) -> None:
    process, asked_at = psutil.Process(), None
    most = process.memory_info().rss + room
    while not done.wait(EVERY):
        what, until = _doing[-1] if _doing else ("", float("inf"))
        if process.memory_info().rss > most:
            _shell[0].fail(f"{what} took more than {room / 1e9:.1f} GB of memory, so it was ended. "
                           "Choose another model, or leave out the longest rows.")
        if time.monotonic() > until:
            _shell[0].fail(f"{what} took too long, so it was ended. Choose another model, or a shorter text.")
        if not _shell[0].asked():
            asked_at = None
        elif asked_at is None:
            asked_at = time.monotonic()
        elif time.monotonic() - asked_at > PATIENCE:
            _shell[0].stop()


def leave(code: int) -> None:
    """End this process at once: another thread of it may never come back."""
    os._exit(code)
