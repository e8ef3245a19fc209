"""A look at a dataset without loading it into the page: a short process reads it and hands back the first pairs."""

import json
import subprocess
import sys
from dataclasses import dataclass

from studio.errors import DataError
from studio.jobs import PROJECT
from studio.settings import DataSettings

SECONDS = 600
"""Longest wait for a dataset that must be downloaded first."""


@dataclass(frozen=True)
class Preview:
    """What a dataset gives: how its columns were read, what was left out, the first pairs as rows."""

    columns: str
    counts: str
    pairs: list[dict]
    usable: int


def look(settings: DataSettings, token: str | None = None, first: int = 20) -> Preview:
    """The first pairs of a dataset. Raises DataError with the worker's two sentences."""
    request = json.dumps({"data": settings.model_dump(), "token": token, "first": first})
    try:
        done = subprocess.run([sys.executable, "-m", "studio.engine.look"], cwd=PROJECT, input=request,
                              capture_output=True, text=True, encoding="utf-8", timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise DataError(f"{settings.source} was not read within {SECONDS // 60} minutes. "
                        "Check the connection, or download it and choose the file.") from None
    lines = done.stdout.splitlines()
    answer = json.loads(lines[-1]) if lines else {"error": "Reading the dataset ended without an answer. Try again."}
    if "error" in answer:
        raise DataError(answer["error"])
    return Preview(**answer)
