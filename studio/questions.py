"""Questions that a person keeps to ask again and again: a file beside the runs, offered with every run."""

import json
from pathlib import Path

from studio import whole
from studio.errors import StudioError

LONGEST, MOST = 2000, 100
"""Characters of a question; questions."""


def path(root: Path) -> Path:
    """Where they are."""
    return root / ".questions" / "questions.json"


def kept(root: Path) -> list[str]:
    """The questions, the oldest first; none where there is no file that can be read."""
    try:
        found = whole.read_json(path(root))
        return list(dict.fromkeys(text for text in found if isinstance(text, str) and 0 < len(text) <= LONGEST))[:MOST]
    except (OSError, ValueError, TypeError):
        return []


def keep(root: Path, question: str) -> list[str]:
    """Keep one more. Returns all. Raises StudioError for what is none, or one too many, and then nothing has changed."""
    question, before = (question or "").strip(), kept(root)
    if not question:
        raise StudioError("There is no question to keep. Write one, or ask one first.")
    if len(question) > LONGEST:
        raise StudioError(f"This question has {len(question):,} characters, and {LONGEST:,} is the most that is kept. Shorten it.")
    if question not in before and len(before) == MOST:
        raise StudioError(f"{MOST} questions are kept, which is the most. Forget one first.")
    return _write(root, [text for text in before if text != question] + [question])


def forget(root: Path, question: str) -> list[str]:
    """Keep one no longer. Returns the rest. Raises StudioError where it is not kept."""
    before = kept(root)
    if question not in before:
        raise StudioError("This question is not kept. Choose one of yours from the list first.")
    return _write(root, [text for text in before if text != question])


def _write(root: Path, questions: list[str]) -> list[str]:
    try:
        path(root).parent.mkdir(parents=True, exist_ok=True)
        whole.write(path(root), json.dumps(questions))
    except OSError as error:
        raise StudioError(f"Your questions could not be written ({error.strerror}). "
                          "Free some space on the disk, then try again.") from error
    return questions
