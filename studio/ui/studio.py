"""What every tab is handed: the runs folder, the queue, the chat, and the event logs."""

from dataclasses import dataclass, field
from pathlib import Path

from studio import events, jobs, runs
from studio.chat import Chat
from studio.errors import StudioError
from studio.jobs import Job, Queue, Status
from studio.runs import Run
from studio.shape import Shapes

QUIET = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}
"""For events that only keep the page in step."""

PRIVATE = {"show_progress": "hidden", "api_visibility": "private"}
"""For what a person sets off and may wait for."""


@dataclass
class Studio:
    """One studio: a folder of runs and who works on it."""

    root: Path
    queue: Queue
    chat: Chat = field(default_factory=Chat)
    logs: events.Logs = field(default_factory=events.Logs, repr=False)
    shapes: Shapes = field(default_factory=Shapes, repr=False)

    def said(self, job: Job) -> list[events.Event]:
        """The events of a job so far."""
        return self.logs.read(job.log)

    def status(self, run: Run) -> Status | None:
        """Where a run's training stands."""
        job = jobs.of(run)
        return jobs.status(job, self.said(job))

    def find(self, name: str | None) -> Run | None:
        """The run in view, or None when there is none (yet, or any more)."""
        try:
            return runs.find(self.root, name) if name else None
        except StudioError:
            return None
