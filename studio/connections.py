"""Connections, bounded before there is a request: so many at a time, so long for a request's head, and a log that cannot be filled.

A server that takes any number of half-sent requests runs out of file descriptors, and asyncio then writes thousands of lines a
second. Here the connection that has asked nothing for longest, with half a request or none, makes room for a new visitor.
"""

import asyncio
import logging
import resource
import time
from collections import OrderedDict

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10
"""In which a request's head must have arrived whole, from its first byte or from the connection on."""
KEEP_ALIVE_SECONDS = 75
"""For which a connection is kept between two requests. Longer than a page is quiet, and than a proxy keeps a connection, which is a
minute as a rule: a request that is sent while the connection is being closed is lost."""
MOST = 1000
"""Connections at a time. A page that is open holds about three."""
FOR_FILES = 400
"""Descriptors that are left for logs, pipes and files."""
LINES, LINES_SECONDS = 50, 60
"""Lines that strangers can cause in the log in so many seconds."""


def most() -> int:
    """How many connections there may be; the process is allowed more descriptors first, where it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST + FOR_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return MOST if soft == resource.RLIM_INFINITY else max(50, min(MOST, soft - FOR_FILES))


class Connection(H11Protocol):
    """One visitor's connection. Those of which no whole head has arrived since the last answer are known, oldest first."""

    most = MOST
    silent: "OrderedDict[Connection, None]" = OrderedDict()
    _impatient: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._wait_for_head()
        if len(self.connections) > self.most:
            next(iter(self.silent)).give_up()  # there is one at least: this

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_has_arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self.conn.their_state is not h11.IDLE:
            self._head_has_arrived()
        elif self._impatient is None:  # the beginning of one more request
            self._wait_for_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.silent[self] = None  # uvicorn waits for the next request, KEEP_ALIVE_SECONDS

    def give_up(self) -> None:
        """Wait no longer. Nothing is answered: nothing was asked."""
        end = self.transport.close if self._impatient is None else self.transport.abort  # the last answer may be on its way
        self._head_has_arrived()
        end()

    def _wait_for_head(self) -> None:
        self.silent[self] = None
        self._impatient = self.loop.call_later(HEAD_SECONDS, self.give_up)

    def _head_has_arrived(self) -> None:
        self.silent.pop(self, None)
        if self._impatient is not None:
            self._impatient.cancel()
            self._impatient = None


class FewLines(logging.Filter):
    """Lets so many lines a minute through, and says how many it kept back."""

    def __init__(self):
        super().__init__()
        self._since, self._let_through, self._kept_back = 0.0, 0, 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this one is let through."""
        if (now := time.monotonic()) - self._since > LINES_SECONDS:
            if self._kept_back:
                record.msg, record.args = f"{record.getMessage()} (Before this, {self._kept_back:,} lines were left out.)", ()
            self._since, self._let_through, self._kept_back = now, 0, 0
        self._let_through += 1
        self._kept_back += self._let_through > LINES
        return self._let_through <= LINES


def bounded() -> type[Connection]:
    """The protocol for a server, with the bounds of this machine, and logs that strangers cannot fill."""
    Connection.most = most()
    few = FewLines()
    for name in ("uvicorn.error", "asyncio"):
        logging.getLogger(name).addFilter(few)
    return Connection
