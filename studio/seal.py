"""The chat template's seal: a short hash that a run is trained with, and that whatever speaks or is shared later must still have."""

import hashlib
from pathlib import Path

from studio import events
from studio.errors import StudioError
from studio.runs import Run

TEMPLATE = "chat_template.jinja"


def seal(template: str | None) -> str:
    """Twelve hexadecimal digits, the same for everything that is written with the same template."""
    return hashlib.sha256((template or "").encode()).hexdigest()[:12]


def trained_with(run: Run, said: list[events.Event] | None = None) -> str:
    """The seal that a run was trained with; empty for one that has not come so far, or of an older version.

    `said` spares reading its log where that is read already.
    """
    planned = events.last(events.read(run.folder / events.FILE) if said is None else said, events.Planned)
    return planned.template if planned else ""


def of(folder: Path) -> str:
    """The seal of the template in an adapter's or a model's folder."""
    try:
        return seal((folder / TEMPLATE).read_text(encoding="utf-8"))
    except OSError:
        return seal(None)


def check(run: Run, folder: Path) -> None:
    """Raises StudioError if the template in an adapter's or merged model's folder is not the one that the run was trained with."""
    was, now = trained_with(run), of(folder)
    if was and now != was:
        raise StudioError(f"The chat template in {run.name}/{folder.name} is not the one this run was trained with "
                          f"(seal {now}, was {was}), and answers would not be those it learned. Restore {TEMPLATE} there, or train again.")
