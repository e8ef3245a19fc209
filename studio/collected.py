"""Pairs that a person collects by preferring one answer to another in Compare: a file beside the runs, ready to be learned from."""

import time
from pathlib import Path

from studio import json_lines, pasted
from studio.errors import DataError
from studio.preferences.pairs import Pair


def path(root: Path) -> Path:
    """Where they are: a JSONL file like any other."""
    return root / ".collected" / "collected.jsonl"


def add(root: Path, pair: Pair, run: str, identity: str = "") -> int:
    """Keep one more pair, got while comparing that run; how many there are now. Raises DataError if it teaches nothing.

    `identity` is that of the judgement that made it, by which it can be undone.
    """
    better, worse = (turns[-1]["content"].strip() for turns in (pair.chosen, pair.rejected))
    if not better or not worse:
        raise DataError("One of the answers is empty. Let both answer first.")
    if better == worse:
        raise DataError("Both answers are the same, and nothing can be learned from them. Ask something on which they differ.")
    pasted.refuse(*(turn["content"] for side in (pair.prompt, pair.chosen, pair.rejected) for turn in side))
    file = path(root)
    file.parent.mkdir(parents=True, exist_ok=True)
    named = {"id": identity} if identity else {}
    json_lines.append(file, pair.row() | {"run": run, "collected": time.strftime("%Y-%m-%d %H:%M:%S")} | named)
    return count(root)


def count(root: Path) -> int:
    """How many pairs have been collected."""
    try:
        with open(path(root), "rb") as lines:
            return sum(1 for _ in lines)
    except FileNotFoundError:
        return 0
