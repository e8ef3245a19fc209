"""What a person says of a run: a title and notes, beside its settings, which stay as they were. Only the page reads and writes them."""

import json
import re
from dataclasses import asdict, dataclass

from studio import pasted, whole
from studio.errors import StudioError
from studio.runs import Run

FILE = "about.json"
LONGEST_TITLE, LONGEST_NOTES = 80, 20_000
"""Characters."""
TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")
"""Unicode's explicit overrides, embeddings and isolates."""


@dataclass(frozen=True)
class About:
    """The title stands beside the run's name, which is its folder's and does not change."""

    title: str = ""
    notes: str = ""


def of(run: Run) -> About:
    """What was said of a run; nothing where nobody did, or where it cannot be read."""
    try:
        found = whole.read_json(run.folder / FILE)
        return About(_line(found["title"])[:LONGEST_TITLE], str(found["notes"])[:LONGEST_NOTES])
    except (OSError, ValueError, KeyError, TypeError):
        return About()


def write(run: Run, title: str, notes: str) -> About:
    """Keep a title and notes instead of those before. Raises StudioError for more than can be shown, and then nothing has changed."""
    about = About(_line(title), notes or "")
    pasted.refuse(about.title, about.notes)
    for what, text, longest in (("title", about.title, LONGEST_TITLE), ("notes", about.notes, LONGEST_NOTES)):
        if len(text) > longest:
            raise StudioError(f"The {what} would have {len(text):,} characters, and {longest:,} is the most. Shorten the {what}.")
    try:
        whole.write(run.folder / FILE, json.dumps(asdict(about), ensure_ascii=True))
    except OSError as error:
        raise StudioError(f"{FILE} of {run.name} could not be written ({error.strerror}). "
                          "Free some space on its disk, then save again.") from error
    return about


def label(run: Run) -> str:
    """A run for a list: its title, if it has one, and its name."""
    return called(of(run).title, run)


def called(title: str, run: Run) -> str:
    """A run with that title, for a list."""
    return f"{title} · {run.name}" if title else run.name


def _line(text: object) -> str:
    """One line without what turns the direction of writing: it would turn the run's name beside it as well."""
    return " ".join(TURNING.sub("", str(text or "")).split())
