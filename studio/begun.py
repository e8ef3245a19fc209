"""What a run keeps from its beginning, however often it is resumed: the rules it was planned by, and its date.

The date is what a chat template is told that writes today's: in training, in the chat, in the proof of a merge. With the day
on which each of them runs, a run could not be resumed tomorrow, and the chat would read another text than was trained.
"""

from dataclasses import dataclass, field
from datetime import datetime

from studio import events
from studio.errors import StudioError
from studio.plan import RULES
from studio.runs import Run


@dataclass(frozen=True)
class Begun:
    """The version of the rules (`plan.RULES`), and the moment, in the local time of the machine on which the run began."""

    rules: int = RULES
    moment: datetime = field(default_factory=lambda: datetime.now().replace(microsecond=0))


def of(said: list[events.Event]) -> Begun:
    """What a run's log says of its beginning; of a run that has not been planned yet, that it begins now.

    A log of an older version says neither: such a run goes on by the first rules, with the day on which its worker started.
    Raises StudioError for a run that was begun by a newer version.
    """
    planned = events.last(said, events.Planned)
    if planned is None:
        return Begun()
    if planned.rules not in range(1, RULES + 1):
        raise StudioError("This run was begun by a newer version of the studio, which draws its pairs in another way. "
                          "Resume it with that version, or start a new run.")
    return Begun(planned.rules, _parsed(planned.moment) or _started(said))


def moment(run: Run, said: list[events.Event] | None = None) -> datetime:
    """The date of a run. `said` spares reading its log where that is read already."""
    return of(events.read(run.folder / events.FILE) if said is None else said).moment


def tells_the_time(template: str | None) -> bool:
    """Whether what a chat template writes can depend on the date."""
    return "strftime_now" in (template or "")


def _parsed(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=None)
    except (ValueError, TypeError):
        return None


def _started(said: list[events.Event]) -> datetime:
    first = next((event for event in said if isinstance(event, events.Started)), said[0])
    return datetime.fromtimestamp(first.at).replace(microsecond=0)
