"""One pair as the model reads it, without a tokenizer in the page: a short process makes its tokens."""

import json
import subprocess
import sys
from dataclasses import dataclass

from studio import credentials
from studio.errors import DataError
from studio.jobs import PROJECT
from studio.settings import Settings

PROGRAM = ["-m", "studio.engine.look"]
SECONDS = 300
"""Longest wait for a tokenizer that must be downloaded first."""


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


def look(settings: Settings, pair: dict, token: str | None = None, owner: str = "") -> Tokens:
    """A pair (prompt, chosen and rejected as messages) in tokens, for a user or the person at this machine.

    Raises DataError with the process's two sentences.
    """
    handed = credentials.handed_over(owner, {"token": token} if token else {})
    request = json.dumps({"settings": settings.model_dump(), **handed,
                          "pair": {name: pair[name] for name in ("prompt", "chosen", "rejected", "tools") if name in pair}})
    try:
        done = subprocess.run([sys.executable, *PROGRAM], cwd=PROJECT, input=request, env=credentials.environment(owner),
                              capture_output=True, text=True, encoding="utf-8", timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise DataError(f"The tokenizer of {settings.model.name} was not there within {SECONDS // 60} minutes. "
                        "Check the connection, then try again.") from None
    lines = done.stdout.splitlines()
    answer = json.loads(lines[-1]) if lines else {"error": "Making the tokens ended without an answer. Try again."}
    if "error" in answer:
        raise DataError(answer["error"])
    return Tokens(**answer)
