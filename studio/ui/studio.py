"""What every tab is handed: the runs folder, the queue, the chat, and a reader of event logs that parses each line once."""

import threading
from dataclasses import dataclass, field
from pathlib import Path

from studio import events, jobs, runs
from studio.chat import Chat
from studio.errors import StudioError
from studio.jobs import Job, Queue, Status
from studio.runs import Run

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
    _logs: dict[Path, events.Log] = field(default_factory=dict, repr=False)
    _reading: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def said(self, job: Job) -> list[events.Event]:
        """The events of a job so far. A log that was begun afresh is read afresh."""
        with self._reading:
            log = self._logs.get(job.log)
            if log is None or log.replaced:
                log = self._logs[job.log] = events.Log(job.log)
            return list(log.read())

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
