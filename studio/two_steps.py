"""Try two steps: the page's end of a job that takes two real ones on the longest pairs and says what they took.

It works in a hidden folder beside the runs, never while a training does, and leaves no run and no adapter.
"""

from dataclasses import dataclass
from pathlib import Path

from studio import events, jobs
from studio.errors import BusyError, SettingsError
from studio.jobs import Job, Queue
from studio.settings import Settings

OF_NO_WEIGHT = {"epochs", "max_steps", "beta", "learning_rate", "schedule", "warmup_steps", "seed", "report_to",
                "weight_decay", "max_grad_norm"}
"""Choices of training that change neither memory nor the speed of a step."""


@dataclass(frozen=True)
class Trial:
    """Where the two steps stand: the log, and what they were asked for with."""

    said: list[events.Event]
    settings: Settings | None
    status: jobs.Status | None
    asked_to_stop: bool = False

    @property
    def at_work(self) -> bool:
        return self.status in jobs.ALIVE

    @property
    def is_stopping(self) -> bool:
        return self.at_work and self.asked_to_stop

    @property
    def outcome(self) -> events.Tried | None:
        return events.last(self.said, events.Tried)

    def speaks_of(self, settings: Settings) -> bool:
        """Whether what was measured holds for these settings as well."""
        return self.settings is not None and _weighty(self.settings) == _weighty(settings)


def _weighty(settings: Settings) -> dict:
    return settings.model_dump(include={"model": True, "data": True, "adapter": True,
                                        "training": set(type(settings.training).model_fields) - OF_NO_WEIGHT})


def trial(root: Path) -> Trial:
    """The last trial in a folder of runs."""
    job = jobs.trial_of(root)
    said = events.read(job.log)
    return Trial(said, _asked(job), jobs.status(job, said), job.stop_file.exists())


def stop(root: Path) -> None:
    """Ask the last trial to end; nothing happens where it has."""
    if trial(root).at_work:
        jobs.stop(jobs.trial_of(root))


def _asked(job: Job) -> Settings | None:
    try:
        return Settings.from_file(job.folder / "request.yaml")
    except (OSError, SettingsError):
        return None


def begin(queue: Queue, room: Path, settings: Settings, secrets: dict[str, str] | None = None) -> None:
    """Start the two steps in a room. Raises BusyError while a training or another trial is at work or waits."""
    room.mkdir(parents=True, exist_ok=True)
    with queue.alone():
        if any(queue.unfinished().values()):
            raise BusyError("A training is at work or waits for its turn. Wait for it to end, or stop it, then try two steps.")
        queue.before_start()
        jobs.request(jobs.trial_of(room), settings.to_yaml(), secrets)
