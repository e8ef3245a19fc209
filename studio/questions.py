"""Questions that a person keeps to ask again and again: a file beside the runs, offered with every run."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from studio import pasted, whole
from studio.errors import StudioError

LONGEST, MOST = 2000, 100
"""Characters of a question; questions."""


@dataclass(frozen=True)
class Question:
    """A question to the byte, and the system prompt that it is asked after: None for that of whoever is asked."""

    text: str
    system: str | None = None


def lines(text: str) -> list[str]:
    """The fixed prompts of a run, one a line, each as it stands there; empty lines are none."""
    return [line for line in (line.removesuffix("\r") for line in text.split("\n")) if line.strip()]


def path(root: Path) -> Path:
    """Where they are."""
    return root / ".questions" / "questions.json"


def kept(root: Path) -> list[Question]:
    """The questions, the oldest first; none where there is no file that can be read."""
    found: dict[str, Question] = {}
    with suppress(OSError, ValueError, TypeError, RecursionError):
        entries = json.loads(path(root).read_bytes())
        for entry in entries if isinstance(entries, list) else ():
            question = _read(entry)
            if question is not None and len(question.text) <= LONGEST:
                found.setdefault(question.text, question)
    return list(found.values())[:MOST]


def _read(entry: object) -> Question | None:
    """The question that an entry of the file holds: a text alone, or a text and its system prompt."""
    text, system = (entry, None) if isinstance(entry, str) else (
        entry.get("text"), entry.get("system")) if isinstance(entry, dict) else (None, None)
    return Question(text, system if isinstance(system, str) else None) if isinstance(text, str) and text.strip() else None


def keep(root: Path, text: str, system: str | None = None) -> list[Question]:
    """Keep one more, to the byte. Returns all. Raises StudioError for what is none, or one too many, and then nothing has changed."""
    before = kept(root)
    if not (text or "").strip():
        raise StudioError("There is no question to keep. Write one, or ask one first.")
    pasted.refuse(text, system)
    for what, long in (("question", text), ("system prompt", system or "")):
        if len(long) > LONGEST:
            raise StudioError(f"This {what} has {len(long):,} characters, and {LONGEST:,} is the most that is kept. Shorten it.")
    others = [question for question in before if question.text != text]
    if len(others) == MOST:
        raise StudioError(f"{MOST} questions are kept, which is the most. Forget one first.")
    return _write(root, [*others, Question(text, system)])


def forget(root: Path, text: str, system: str | None = None) -> list[Question]:
    """Keep one no longer, whichever its system prompt. Returns the rest. Raises StudioError where it is not kept."""
    before = kept(root)
    rest = [question for question in before if question.text != text]
    if len(rest) == len(before):
        raise StudioError("This question is not kept. Choose one of yours from the list first.")
    return _write(root, rest)


def _write(root: Path, questions: list[Question]) -> list[Question]:
    entries = [question.text if question.system is None else {"text": question.text, "system": question.system} for question in questions]
    try:
        path(root).parent.mkdir(parents=True, exist_ok=True)
        whole.write(path(root), json.dumps(entries))
    except OSError as error:
        raise StudioError(f"Your questions could not be written ({error.strerror}). "
                          "Free some space on the disk, then try again.") from error
    return questions
