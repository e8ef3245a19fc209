"""One pair as the model reads it, without a tokenizer in the page: a short process makes its tokens."""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from studio import credentials, shares
from studio.errors import DataError
from studio.jobs import PROJECT
from studio.settings import Settings

PROGRAM = ["-m", "studio.engine.look"]
SECONDS = 300
"""Longest wait for a tokenizer that must be downloaded first."""
HEARTBEAT_SECONDS = 0.3
at_work: Counter[str] = Counter()
"""Running preview processes by owner."""


@dataclass(frozen=True)
class Tokens:
    """A pair's texts as tokens. The first `prompt` of both are the question; those from `max_length` on are cut off.

    A token whose bytes are characters only together with those before it is None; the first of them has the text of all.

    `seal` is a hash of the chat template, the same for everything that was written with the same template.
    """

    prompt: int
    chosen: list[str | None]
    rejected: list[str | None]
    max_length: int
    seal: str


def look(settings: Settings, pair: dict, token: str | None = None, owner: str = "") -> Iterator[Tokens | None]:
    """Tokenize a pair (prompt, chosen and rejected as messages) in a process for `owner`; yields None until the tokens are there.

    Closing the iterator kills the process. Raises DataError with the process's message, BusyError if a user runs too many at once.
    """
    shares.refuse_another_helper(owner, at_work[owner])
    at_work[owner] += 1
    try:
        yield from _made(settings, pair, token, owner)
    finally:
        at_work[owner] -= 1


def _made(settings: Settings, pair: dict, token: str | None, owner: str) -> Iterator[Tokens | None]:
    handed = credentials.handed_over(owner, {"token": token} if token else {})
    request = json.dumps({"settings": settings.model_dump(), **handed,
                          "pair": {name: pair[name] for name in ("prompt", "chosen", "rejected", "tools") if name in pair}})
    end = time.monotonic() + SECONDS
    with subprocess.Popen([sys.executable, *PROGRAM], cwd=PROJECT, env=credentials.environment(owner), stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, encoding="utf-8") as process:
        try:
            while (said := _heard(process, request)) is None:
                request = None  # it is on its way
                if time.monotonic() > end:
                    raise DataError(f"The tokenizer of {settings.model.name} was not there within {SECONDS // 60} minutes. "
                                    "Check the connection, then try again.")
                yield None
        finally:
            process.kill()
    lines = said.splitlines()
    answer = json.loads(lines[-1]) if lines else {"error": "Making the tokens ended without an answer. Try again."}
    if "error" in answer:
        raise DataError(answer["error"])
    yield Tokens(**answer)


def _heard(process: subprocess.Popen, request: str | None) -> str | None:
    """The complete output of a process, or None if it is still running."""
    try:
        return process.communicate(request, timeout=HEARTBEAT_SECONDS)[0]
    except subprocess.TimeoutExpired:
        return None
