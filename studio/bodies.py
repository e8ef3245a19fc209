"""What a request carries: counted as it arrives, whatever was announced, and looked through before anybody acts on it.

A body of JSON is refused by its depth and by how many values it holds before it is parsed: ten million empty lists fit into 30 MB
and take half a minute and 1.5 GB as Python objects. What is large is looked through in a thread.
"""

import asyncio
import json
import re
import shutil
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from starlette.types import Message, Receive

from studio.refused import Refused

LARGEST = 8 * 1024**2
"""Bytes of a conversation, or of a form with all its fields."""
MOST_VALUES, DEEPEST = 20_000, 40
"""Values and levels of nesting. The page's largest events, two long conversations, hold about 2,000 values on 6 levels."""
SECONDS = 30
"""In which a body must have arrived."""
STALLED_SECONDS = 60
"""After which an upload that brings nothing more is given up."""
HELD_EACH, HELD_IN_ALL = 3 * LARGEST, 12 * LARGEST
"""Bytes of bodies in memory at a time, of one visitor and of everybody."""
SMALL = 64 * 1024
"""Bytes that are looked through faster than a thread takes them over."""
SPARE = 1024**3
"""Bytes that an upload leaves free on the disk."""
LOOKS = 64 * 1024**2
"""Bytes of an upload between two looks at the disk."""

CLOSE = {"Connection": "close"}
"""For the refusal of what may go on arriving for ever."""

TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\Z)|[\[\]{},:]', re.DOTALL)
"""A text, or a mark of JSON's structure. Possessive: a text that never ends is walked through once."""
AT_ONCE = anyio.CapacityLimiter(2)


@dataclass
class Intake:
    """Takes bodies in: none longer than LARGEST, and not too many bytes at a time."""

    _held: Counter = field(default_factory=Counter)
    _counting: threading.Lock = field(default_factory=threading.Lock)

    @asynccontextmanager
    async def body(self, receive: Receive, who: str) -> AsyncIterator[bytes]:
        """Context with the whole body of a request by `who`. Raises Refused for one that is too long or too slow."""
        taken = bytearray()
        try:
            try:
                async with asyncio.timeout(SECONDS):
                    async for piece in _pieces(receive):
                        self._hold(who, len(piece))
                        taken += piece
                        if len(taken) > LARGEST:
                            raise too_large(LARGEST)
            except TimeoutError:
                raise Refused(408, "The request did not arrive in time. Check the connection, then try again.", **CLOSE) from None
            yield bytes(taken)
        finally:
            self._hold(who, -len(taken))

    def _hold(self, who: str, count: int) -> None:
        with self._counting:
            if count > 0 and (self._held[who] + count > HELD_EACH or self._held.total() + count > HELD_IN_ALL):
                raise Refused(503, "Too much is being sent at once. Wait some seconds, then try again.", **CLOSE | {"Retry-After": "5"})
            self._held[who] += count
            if self._held[who] <= 0:
                del self._held[who]


def too_large(most: int) -> Refused:
    """The refusal of what is longer than `most` bytes."""
    return Refused(413, f"This is larger than the studio takes ({most / 1024**2:,.0f} MB). Bring it in parts.", **CLOSE)


async def _pieces(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Refused(400, "The connection broke before all had arrived. Try again.")
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return


async def parsed(body: bytes) -> Any:
    """The JSON that a body holds. Raises Refused for none, and for more values or levels than any event of the page has."""
    return _parsed(body) if len(body) <= SMALL else await anyio.to_thread.run_sync(_parsed, body, limiter=AT_ONCE)


def _parsed(body: bytes) -> Any:
    _refuse_structure(body)
    try:
        # Decoded here: given bytes, Python would guess UTF-16 and UTF-32 as well, of which the look above saw nothing.
        return json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        raise Refused(400, "This is not JSON. Send one JSON value in UTF-8.") from None


def _refuse_structure(body: bytes) -> None:
    """Raises Refused where JSON is nested too deeply or holds too many values, after a look at no more than decides it."""
    opening = body.count(b"[") + body.count(b"{")
    if opening <= DEEPEST and opening + body.count(b",") + body.count(b":") <= MOST_VALUES:
        return
    depth = values = 0
    for found in TOKEN.finditer(body):
        mark = found[0]
        if mark in b"[{":
            depth += 1
        elif mark in b"]}":
            depth -= 1
            continue
        elif mark not in b",:":
            continue
        values += 1
        if depth > DEEPEST or values > MOST_VALUES:
            raise Refused(413, f"This holds more than {MOST_VALUES:,} values or is nested more than {DEEPEST} deep. Bring it in parts.")


def again(body: bytes, receive: Receive) -> Receive:
    """What gives a body that has been taken in once more, and then whatever `receive` gives."""
    given = False

    async def received() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return received


def counted(receive: Receive, most: int, folder: Path) -> Receive:
    """What receives an upload into `folder`. It raises Refused once more than `most` bytes came, nothing came, or the disk is short."""
    arrived = looked_at = 0

    async def received() -> Message:
        nonlocal arrived, looked_at
        try:
            message = await asyncio.wait_for(receive(), STALLED_SECONDS)
        except TimeoutError:
            raise Refused(408, "Nothing more of the file arrived. Check the connection, then upload it again.", **CLOSE) from None
        arrived += len(message.get("body", b""))
        if arrived > most:
            raise too_large(most)
        if arrived - looked_at >= LOOKS:
            looked_at = arrived
            refuse_full_disk(folder, 0)
        return message

    return received


def refuse_full_disk(folder: Path, coming: int) -> None:
    """Raises Refused where so many bytes more would leave too little room on the folder's disk."""
    if coming + SPARE > (free := shutil.disk_usage(folder).free):
        raise Refused(507, f"The disk has no room for it: {coming / 1e9:.1f} GB are sent and {free / 1e9:.1f} GB are free. "
                           "Free some space, then upload again.")
