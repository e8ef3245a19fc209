"""Who may use the studio, and as whom: users with passwords, and the passes that their browsers keep."""

import hashlib
import json
import os
import re
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from itsdangerous import BadData, URLSafeTimedSerializer

from studio import names, whole
from studio.errors import StudioError

USERS_FILE, SECRET_FILE, ENDED_FILE = ".users.json", ".secret", ".signed_out"
USER = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
"""A user's name is also the name of the folder that is their room."""
SHORTEST_PASSWORD = 8
ONLY_THE_OWNER = 0o600
"""Who may read the files of secrets."""
LONG = 4 * 2**20
"""Bytes of a file of passes that have ended, above which it is shortened at the next start."""
DAYS = 30
"""A pass is good for so long, and no longer than its user and password are."""


class AccessError(StudioError):
    """Somebody asked for what is not theirs, or has not signed in."""


@dataclass(frozen=True)
class Visitor:
    """Somebody who may be here: a user who signed in, or, without a name, the person at this machine."""

    name: str = ""
    admin: bool = False
    """Sees everybody's runs and may stop them."""


LOCAL = Visitor(admin=True)


@dataclass(frozen=True)
class _User:
    password: str
    """Argon2id, with its salt and cost."""
    admin: bool = False


class Users:
    """The named users of a studio, in a file that only its owner reads. Others may change the file meanwhile."""

    def __init__(self, home: Path):
        self.path = home / USERS_FILE
        self._hasher = PasswordHasher()
        # Checked for a name that nobody has, so that it takes as long as for one that somebody has.
        self._nobody = self._hasher.hash(secrets.token_urlsafe())

    def __bool__(self) -> bool:
        return bool(self._users())

    def add(self, name: str, password: str, admin: bool = False) -> Visitor:
        """Let somebody in, or change their password. Raises StudioError for a name or password that cannot be one."""
        if not USER.fullmatch(name):
            raise StudioError(f"{name[:60]!r} cannot be a user's name. Use lower-case letters, digits, - and _, at most 32 of them.")
        if name in names.OWN:
            raise StudioError(f"{name!r} is the name of a folder of the studio's own, so no user can have it. Choose another name.")
        if len(password) < SHORTEST_PASSWORD:
            raise StudioError(f"The password is too short. Use {SHORTEST_PASSWORD} characters or more.")
        self._write(self._users() | {name: _User(self._hasher.hash(password), admin)})
        return Visitor(name, admin)

    def remove(self, name: str) -> None:
        """Let somebody in no longer; their room stays. Raises StudioError if there is no such user."""
        left = self._users()
        if left.pop(name, None) is None:
            raise StudioError(f"There is no user {name[:60]!r}. Those there are: {', '.join(left) or 'none'}.")
        self._write(left)

    def find(self, name: str) -> Visitor | None:
        """The user of that name, if there is one."""
        user = self._users().get(name)
        return Visitor(name, user.admin) if user else None

    def check(self, name: str, password: str) -> Visitor | None:
        """The user if that is their password. Takes a twentieth of a second, on purpose."""
        user = self._users().get(name)
        try:
            self._hasher.verify(user.password if user else self._nobody, password)
        except (Argon2Error, InvalidHashError):
            return None
        return Visitor(name, user.admin) if user else None

    def mark(self, name: str) -> str:
        """What changes with a user's password, and says nothing about it."""
        user = self._users().get(name)
        return hashlib.sha256(user.password.encode()).hexdigest()[:16] if user else ""

    def _users(self) -> dict[str, _User]:
        """Everybody; a damaged file lets nobody in rather than everybody. Raises AccessError for one that cannot be read."""
        try:
            return {name: _User(**user) for name, user in json.loads(self.path.read_text(encoding="utf-8")).items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise AccessError(f"The users in {self.path} cannot be read ({type(error).__name__}). Restore the file, or delete it "
                              "and add the users again.") from error

    def _write(self, users: dict[str, _User]) -> None:
        whole.write(self.path, json.dumps({name: asdict(user) for name, user in users.items()}, indent=1), ONLY_THE_OWNER)


class Passes:
    """What a browser keeps so that its visitor need not sign in again: signed, so that nobody else can make one.

    The signing key lies in the studio's folder: a restarted studio knows its visitors again.
    """

    def __init__(self, home: Path, users: Users, named: bool):
        """`named` studios know users only; the others know only the person at this machine."""
        self.users, self.named = users, named
        path = home / SECRET_FILE
        if not path.exists():
            whole.write(path, secrets.token_urlsafe(32), ONLY_THE_OWNER)
        self._signer = URLSafeTimedSerializer(path.read_text(encoding="utf-8"), salt="orpo-studio pass",
                                              signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"})

        self._ended = Ended(home / ENDED_FILE)

    def issue(self, visitor: Visitor) -> str:
        """A pass for a visitor, like no other."""
        return self._signer.dumps([visitor.name, self.users.mark(visitor.name), secrets.token_hex(8)])

    def end(self, text: str) -> None:
        """Revoke a pass and every copy of it. A text that is not a valid pass is ignored."""
        if found := self._opened(text):
            self._ended.add(found[2])

    def read(self, text: str) -> Visitor | None:
        """Whose pass it is, or None for one that is not ours, too old, or of a user who has gone or has a new password."""
        name, mark, number = self._opened(text) or ("", "", None)
        if number is None or number in self._ended:
            return None
        if not self.named:
            return None if name else LOCAL
        return self.users.find(name) if name and mark == self.users.mark(name) else None

    def _opened(self, text: str) -> tuple[str, str, str] | None:
        """Name, mark and number in a pass of ours that is not too old. One from the future is: the clock was set back since."""
        try:
            (name, mark, number), made = self._signer.loads(text, return_timestamp=True)
        except (BadData, ValueError, TypeError):
            return None
        known = all(isinstance(part, str) for part in (name, mark, number))
        return (name, mark, number) if known and time.time() - made.timestamp() <= DAYS * 24 * 3600 else None


class Ended:
    """The numbers of passes whose visitors have signed out, a line each, for all studios on a folder and after a restart."""

    def __init__(self, path: Path):
        self.path = path
        self._numbers: set[str] = set()
        self._read = 0
        self._reading = threading.Lock()
        self._forget_old()

    def add(self, number: str) -> None:
        """Note one more; where it cannot be written, it holds until the studio ends."""
        with self._reading, suppress(OSError):
            self._numbers.add(number)
            with open(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, ONLY_THE_OWNER), "a", encoding="ascii") as file:
                file.write(f"{number} {int(time.time())}\n")

    def __contains__(self, number: str) -> bool:
        with self._reading, suppress(OSError):
            size = self.path.stat().st_size
            if size != self._read:
                self._numbers |= {number for number, _ in self._lines()}
                self._read = size
        return number in self._numbers

    def _lines(self) -> list[tuple[str, float]]:
        found = [line.split() for line in self.path.read_text(encoding="ascii", errors="replace").splitlines()]
        return [(line[0], float(line[1])) for line in found if len(line) == 2 and line[1].isdigit()]

    def _forget_old(self) -> None:
        """Make a long file short again: a pass that is too old is good no longer anyway."""
        with suppress(OSError):
            if self.path.stat().st_size > LONG:
                fresh = [(number, ended) for number, ended in self._lines() if time.time() - ended <= DAYS * 24 * 3600]
                whole.write(self.path, "".join(f"{number} {int(ended)}\n" for number, ended in fresh), ONLY_THE_OWNER)
