"""How often something may be done: by a clock that nobody sets, so that a change of the time of day locks nobody out."""

import asyncio
import ipaddress
import threading
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

KEPT = 20_000
"""Keys of which is known how often they came. The one that has not come for longest is forgotten first."""


@dataclass
class Window:
    """At most `most` times within any `seconds`, counted for each key."""

    most: int
    seconds: float
    _times: OrderedDict[Hashable, deque[float]] = field(default_factory=OrderedDict, repr=False)
    _counting: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def is_full(self, key: Hashable) -> bool:
        """Whether it has been so often already."""
        with self._counting:
            return len(self._of(key)) >= self.most

    def add(self, key: Hashable) -> bool:
        """Count one more. False, and not counted, where it has been too often already."""
        with self._counting:
            times = self._of(key)
            if len(times) >= self.most:
                return False
            times.append(time.monotonic())
            self._times[key] = times
            self._times.move_to_end(key)
            while len(self._times) > KEPT:
                self._times.popitem(last=False)
            return True

    def clear(self, key: Hashable) -> None:
        """Forget how often it was."""
        with self._counting:
            self._times.pop(key, None)

    def _of(self, key: Hashable) -> deque[float]:
        times = self._times.get(key) or deque()
        while times and time.monotonic() - times[0] > self.seconds:
            times.popleft()
        if not times:
            self._times.pop(key, None)
        return times


def network(address: str) -> str:
    """What one sender has of addresses: the address itself, of IPv6 the 64 bits of which whoever has one has all."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if found.version == 4:
        return str(found)
    return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))


class Crowded(Exception):
    """Too many wait already."""


class Turns:
    """Takes turns at what costs memory: so many at once, one of each key, and a bounded line behind them.

    Whoever sends hundreds waits for their own; anybody else's turn comes next.
    """

    def __init__(self, at_once: int, waiting_each: int, waiting_in_all: int):
        self.waiting_each, self.waiting_in_all = waiting_each, waiting_in_all
        self._slots = asyncio.Semaphore(at_once)
        self._own: dict[Hashable, tuple[asyncio.Lock, list]] = {}

    @asynccontextmanager
    async def turn(self, key: Hashable) -> AsyncIterator[None]:
        """Context in which it is the key's turn. Raises Crowded."""
        own, waiting = self._own.setdefault(key, (asyncio.Lock(), []))
        if len(waiting) >= self.waiting_each or sum(len(line) for _, line in self._own.values()) >= self.waiting_in_all:
            raise Crowded
        waiting.append(None)
        try:
            async with own, self._slots:
                yield
        finally:
            waiting.pop()
            if not waiting:
                self._own.pop(key, None)
