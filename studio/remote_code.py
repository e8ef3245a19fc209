"""What a person at this machine has looked at of a model's own code, and which of it they allow to run.

Both are kept in memory until the page process ends. A consent is the hash of the model's name, its commit and all its Python files, so
that it lets nothing else be run; it reaches a worker through the pipe, and no settings, preset, saved run or address can hold it.
"""

import hashlib
import json
import subprocess
import sys
from dataclasses import asdict, dataclass, field

from studio import credentials
from studio.errors import StudioError
from studio.jobs import PROJECT
from studio.settings import ModelSettings

SECONDS = 120
"""Longest wait for the files: small ones, from a Hub that answers."""
SECRET = "code"
"""Under this name a worker is handed the hashes of all that is allowed, apart by blanks."""


@dataclass(frozen=True)
class Code:
    """The Python files of a model, by name. `commit` is empty for a folder of this machine."""

    model: str
    commit: str
    files: dict[str, str]

    @property
    def digest(self) -> str:
        """By which they are known again: SHA-256 over the model, its commit, and every file's name and text."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def in_words(self) -> str:
        """Which model's code, and of when."""
        return f"{self.model} at commit {self.commit[:12]}" if self.commit else f"{self.model} as it lies there now"


def look(settings: ModelSettings, secrets: dict[str, str]) -> Code | None:
    """The code that a model cannot do without, fetched and not run; None for one that needs none. Raises StudioError."""
    asked = {"name": settings.name, "revision": settings.revision, "token": credentials.handed_over("", secrets).get("token")}
    try:
        done = subprocess.run([sys.executable, "-m", "studio.engine.remote_code"], cwd=PROJECT, env=credentials.environment(""),
                              input=json.dumps(asked), capture_output=True, text=True, encoding="utf-8", timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise StudioError(f"The files of {settings.name} did not come within {SECONDS} seconds. Look again.") from None
    answer = json.loads(done.stdout or "null") or {"error": f"Looking at {settings.name} ended without a word. Look again."}
    if "error" in answer:
        raise StudioError(answer["error"])
    return Code(**answer["code"]) if answer["code"] else None


@dataclass
class Consents:
    """What was shown since the page process began, and what of it is allowed to run."""

    _shown: dict[str, Code] = field(default_factory=dict, repr=False)
    _allowed: set[str] = field(default_factory=set)

    def show(self, code: Code) -> None:
        """Note that a person has it before them."""
        self._shown[code.digest] = code

    def allow(self, digest: str, allowed: bool = True) -> Code:
        """Allow code that was shown, or no longer. Raises StudioError for what nobody has looked at."""
        if digest not in self._shown:
            raise StudioError("This code has not been shown since the studio was started. Look at it first.")
        (self._allowed.add if allowed else self._allowed.discard)(digest)
        return self._shown[digest]

    def allows(self, digest: str) -> bool:
        """Whether this code may be run."""
        return digest in self._allowed

    def secrets(self) -> dict[str, str]:
        """What a worker is handed."""
        return {SECRET: " ".join(sorted(self._allowed))} if self._allowed else {}
