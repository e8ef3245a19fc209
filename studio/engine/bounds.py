"""A limit on what a process may take while it makes tokens of foreign texts with a foreign tokenizer.

A tokenizer's normalizing is a program that came with a model: it can multiply a text until the memory is full, or never come back from
one, and no exception reaches it there. So a thread looks on (tokenizers let other threads run meanwhile), and ends the whole process
with words where that happens. Only a process that has said how its last words reach its owner is ever ended.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

ROOM, LEAST = 4 * 2**30, 2**30
"""Bytes that may come on top of what the process had, and that may at least; between them half of the free memory."""
EVERY = 0.1
"""Seconds between two looks."""

_ends_with: list[Callable[[str], None]] = []
_doing: list[tuple[str, float]] = []
"""What is being done, the outermost first, each with the moment at which it must have ended."""


def ends_with(fail: Callable[[str], None]) -> None:
    """Let this process be ended while it does something bounded: `fail` is handed its last words, and must not return."""
    _ends_with[:] = [fail]


@contextmanager
def bounded(what: str, seconds: float = float("inf")) -> Iterator[None]:
    """Within, this process ends with words about `what` where its memory grows too far or `seconds` have passed."""
    if not _ends_with:
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
    process = psutil.Process()
    most = process.memory_info().rss + room
    while not done.wait(EVERY):
        what, until = _doing[-1] if _doing else ("", float("inf"))
        if process.memory_info().rss > most:
            _ends_with[0](f"{what} took more than {room / 1e9:.1f} GB of memory, so it was ended. "
                           "Choose another model, or leave out the longest rows.")
        if time.monotonic() > until:
            _ends_with[0](f"{what} took too long, so it was ended. Choose another model, or a shorter text.")


def leave(code: int) -> None:
    """End this process at once: another thread of it may never come back."""
    os._exit(code)
