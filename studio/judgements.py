"""What a person has judged in Compare and can take back: a blind vote, the pair that was made of it, or both."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio import collected, json_lines, votes
from studio.candidates import Pair
from studio.errors import StudioError
from studio.runs import Run

LISTED = 5


@dataclass(frozen=True)
class Judgement:
    """One, by its identity: when, about which question, whom a vote preferred (nothing where none was counted), whether a pair was kept."""

    identity: str
    when: str
    question: str
    preferred: str = ""
    made_a_pair: bool = False


def latest(root: Path, run: Run, pair: Pair, most: int = LISTED) -> list[Judgement]:
    """The latest judgements on a pair of candidates, and those that made pairs while that run was in view; the newest first."""
    found: dict[str, Judgement] = {}
    for vote in votes.between(run, pair):
        identity = json_lines.identity(vote)
        found[identity] = Judgement(identity, str(vote.get("voted", "")), str(vote.get("question", "")), str(vote["preferred"]))
    for row in json_lines.records(collected.path(root)):
        identity = json_lines.identity(row)
        if row.get("run") == run.name or identity in found:
            known = found.get(identity) or Judgement(identity, str(row.get("collected", "")), _asked(row))
            found[identity] = Judgement(identity, known.when, known.question, known.preferred, made_a_pair=True)
    return sorted(reversed(found.values()), key=lambda one: one.when, reverse=True)[:most]


def undo(root: Path, run: Run, pair: Pair, identity: str) -> tuple[bool, bool]:
    """Take one back: its vote, which counts no longer, and its pair. Returns which of both there was. Raises StudioError."""
    if identity not in {one.identity for one in latest(root, run, pair, most=10**9)}:
        raise StudioError("This vote is no longer there: it was taken back, or the run has gone on since. Look at the list again.")
    try:
        voted = sum(json_lines.take_out(file, lambda vote: json_lines.identity(vote) == identity) for file in votes.files(run, pair))
        kept = json_lines.take_out(collected.path(root), lambda row: json_lines.identity(row) == identity)
    except OSError as error:
        raise StudioError(f"The file could not be written ({error.strerror}). Free some space on the disk, then try again.") from error
    return bool(voted), bool(kept)


def _asked(row: dict[str, Any]) -> str:
    """The question of a collected pair."""
    prompt = row.get("prompt")
    last = prompt[-1] if isinstance(prompt, list) and prompt else {}
    return str(last.get("content", "")) if isinstance(last, dict) else ""
