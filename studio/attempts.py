"""Sign-ins, as many as one may try: wrong passwords are counted, right ones are not, and few are checked at a time."""

import threading
from collections import OrderedDict

import anyio

from studio.access import Users, Visitor
from studio.refused import Refused
from studio.throttle import Crowded, Turns, Window, network

WRONG_EACH, WRONG_FROM_ONE_ADDRESS, WRONG_SECONDS = 5, 30, 300
"""Wrong passwords in five minutes: for one name from one address, and for all names from it."""
AT_ONCE = 2
"""Passwords checked at a time: each takes 64 MB, on purpose."""
WAITING_EACH, WAITING_IN_ALL = 64, 256
"""Sign-ins that may wait for that, from one address and in all."""
KNOWN = 10_000
LONGEST_NAME = 64


class Attempts:
    """Checks names and passwords. A name that came in rightly from an address is not kept out by what others do there."""

    def __init__(self, users: Users):
        self.users = users
        self._each, self._all = Window(WRONG_EACH, WRONG_SECONDS), Window(WRONG_FROM_ONE_ADDRESS, WRONG_SECONDS)
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._turns = Turns(AT_ONCE, WAITING_EACH, WAITING_IN_ALL)
        self._threads = anyio.CapacityLimiter(AT_ONCE)
        self._knowing = threading.Lock()

    async def check(self, name: str, password: str, address: str) -> Visitor | None:
        """The user, or None where name and password do not belong together. Raises Refused after too many wrong passwords."""
        sender = network(address)
        key = (name[:LONGEST_NAME], sender)
        try:
            async with self._turns.turn(sender):
                # Looked at when it is its turn: what was wrong before it has been counted by then.
                if self._each.is_full(key) or (self._all.is_full(sender) and key not in self._known):
                    raise Refused(429, "Too many attempts. Wait five minutes, then sign in again.", **{"Retry-After": "300"})
                visitor = await anyio.to_thread.run_sync(self.users.check, name, password, limiter=self._threads)
                self._note(key, visitor is not None)
                return visitor
        except Crowded:
            raise Refused(503, "Too many people sign in at this moment. Try again in some seconds.", **{"Retry-After": "5"}) from None

    def _note(self, key: tuple[str, str], right: bool) -> None:
        if not right:
            self._each.add(key)
            self._all.add(key[1])
            return
        self._each.clear(key)
        with self._knowing:
            self._known[key] = None
            self._known.move_to_end(key)
            while len(self._known) > KNOWN:
                self._known.popitem(last=False)
