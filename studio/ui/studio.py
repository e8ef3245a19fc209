"""What every tab is handed: the runs of whoever asks, the queue, the chat, and the event logs."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from studio import events, names, remote_code, runs, shares, trackers
from studio.access import LOCAL, AccessError, Visitor
from studio.chat import Chat
from studio.errors import SettingsError, StudioError
from studio.jobs import Job, Queue, Status
from studio.meter import Meter
from studio.readings import Reading, Readings, Views
from studio.remote_code import Consents
from studio.run_index import Entry
from studio.runs import Run
from studio.settings import Settings
from studio.shape import Shapes
from studio.ui import form

NOWHERE = {"show_progress": "hidden", "show_progress_on": []}
"""For events that show no progress. Hidden alone is not enough: at each begin and end of any event Gradio 6.31 updates every
component that an event with a place to show it ever gave something, and runs a clock for each that waits."""

QUIET = NOWHERE | {"queue": False, "api_visibility": "private"}
"""For events that only keep the page in step."""

PRIVATE = NOWHERE | {"api_visibility": "private"}
"""For what a person sets off and may wait for."""

TEXTS = {"postprocess": False}
"""For an event that many pages set off every second and that returns texts alone, HTML or hidden ones: they are sent as they are.
Gradio 6.31 otherwise hands each of them to a thread, and a hundred pages wait for threads."""

LATEST = {"trigger_mode": "always_last"}
"""For an event with several triggers, which shows what is: it runs again for what was triggered while it ran."""

GOOD_ENOUGH = 0.5
"""Seconds: how old a look at the runs may be that is handed to a page which only keeps in step."""


def refuse(what: str, why: StudioError | str) -> Any:
    """Tell whoever set off the event what was not done, and why, until they close it. Returns what leaves every output as it is.

    Not by raising gr.Error: Gradio 6.31 covers the outputs with the word Error, and prints a traceback for what was merely
    mistyped. Of an event outside the queue (QUIET) nothing is told.
    """
    gr.Warning(escape(f"{what}. {why}"), duration=None)  # Gradio takes it for HTML, and shows no title of ours
    return gr.skip()


def looks_while(at_work: bool, by_timer: bool = False) -> Any:
    """The update of a timer that looks while something is at work. `by_timer`: it was the timer that looked.

    Only its own look ends it: another one may have been worked out before the work began, and arrive after.
    """
    return gr.Timer(active=at_work) if at_work or by_timer else gr.skip()


@dataclass
class Studio:
    """One studio: a folder with the rooms of those who use it, and who works in it.

    Whatever belongs to somebody is reached through `root`, `runs` and `find`, and these ask `who` is asking: an event cannot
    forget to check. All three raise AccessError for somebody who may not be here.
    """

    home: Path
    queue: Queue
    chat: Chat = field(default_factory=Chat)
    who: Callable[[], Visitor] = lambda: LOCAL
    """The visitor who set off the event that is being handled."""
    models: tuple[Path, ...] = ()
    """Folders of this machine from which users may take models."""
    readings: Readings = field(default_factory=Readings, repr=False)
    """The logs of the runs that somebody looks at, read once for all who do."""
    views: Views = field(default_factory=Views, repr=False)
    """What was made of them for a page, for all who look at the same."""
    meter: Meter | None = None
    """What the Space costs on which the studio runs."""
    has_users: bool = False
    """Whether it is for users with passwords; else for the person at this machine alone."""
    _shapes: dict[str, Shapes] = field(default_factory=dict, repr=False)
    _consents: Consents = field(default_factory=Consents, repr=False)

    @property
    def root(self) -> Path:
        """The room of the visitor who asks."""
        return runs.room(self.home, self.who().name)

    @property
    def shapes(self) -> Shapes:
        """The model shapes that the visitor has looked up: of a private model nobody else learns anything."""
        name = self.who().name
        return self._shapes.setdefault(name, Shapes(from_cache=not name))

    def entries(self, within: float = 0.0) -> list[Entry]:
        """The folders that the visitor may see, newest first: their own, or everybody's for an administrator; as they were at
        most so many seconds ago.
        """
        index = self.queue.index
        return index.everywhere(within) if self.who().admin else index.entries(self.root, within)

    def runs(self) -> list[Run]:
        """The runs of these that can be read."""
        return [entry.run for entry in self.entries() if not entry.reason]

    def find(self, name: str | None) -> Run | None:
        """The run in view, or None when there is none (yet, or any more) that the visitor may see."""
        return self.find_for(self.who(), name) if isinstance(name, str) and name else None

    def find_for(self, visitor: Visitor, name: str) -> Run | None:
        """The same for whoever asks outside an event."""
        for room in [runs.room(self.home, visitor.name), *(runs.rooms(self.home) if visitor.admin else ())]:
            with suppress(StudioError):
                return runs.find(room, name)
        return None

    def settings_of(self, values: dict[str, Any]) -> Settings:
        """The form's values as Settings that the visitor may use. Raises SettingsError."""
        return self.permitted(form.settings_of(values))

    def permitted(self, settings: Settings) -> Settings:
        """The settings, if they read nothing that is not the visitor's. Raises SettingsError.

        The person at this machine may read its files; a user only what they brought, what `models` holds, or the Hub has.
        """
        if self.who().name:
            source, *also = [part.source for part in settings.data.parts]
            for field, given, folders in (("data.source", [source], [self.root]), ("data.also", also, [self.root]),
                                          ("model.name", [settings.model.name], self.models)):
                try:
                    names.refuse_paths_outside(given, folders)
                except ValueError as error:
                    raise SettingsError({field: str(error)}) from error
        return settings

    def place_in_line(self, run: Run) -> tuple[int, Run | None]:
        """How many runs start before a waiting one, and the last of them; None where the visitor may not see which it is."""
        waiting = self.queue.waiting()
        place = waiting.index(run) if run in waiting else 0
        before = waiting[place - 1] if place else None
        return place, before if before is not None and self.may_pass(before) else None

    def may_pass(self, run: Run) -> bool:
        """Whether a run is the visitor's to see and to move behind another."""
        return self.who().admin or run.owner == self.who().name

    def secrets(self, run: Run) -> dict[str, str]:
        """The token that was entered with a run, for the one who entered it: an administrator acts with a token of their own.

        The key of a tracker is for training alone.
        """
        return trackers.without_key(self._entered(run))

    def _entered(self, run: Run) -> dict[str, str]:
        return self.handed(self.queue.secrets(run)) if run.owner == self.who().name else {}

    def handed(self, secrets: dict[str, str]) -> dict[str, str]:
        """What a worker is handed: the token that was entered, and which models' code the person at this machine allows now."""
        token = {name: secret for name, secret in secrets.items() if name != remote_code.SECRET}
        return token if self.who().name else token | self._consents.secrets()

    def resume(self, run: Run) -> None:
        """Let a run go on, if its settings are open to the visitor. Raises StudioError.

        They are looked at again: a folder may have got into a room otherwise than through the form.
        """
        self.permitted(run.settings)
        shares.refuse_another_run(run.folder.parent, self.queue.index)
        shares.refuse_disk(run.folder.parent)
        self.queue.resume(run, self._entered(run))

    def consents(self) -> Consents:
        """What of models' own code is allowed to run. Raises AccessError for a user: only the person at this machine decides that."""
        if self.who().name:
            raise AccessError("A model's own code can be allowed only at this machine, in a studio without users.")
        return self._consents

    def reading(self, job: Job) -> Reading:
        """What a job's log says, the same object for as long as that is the same."""
        return self.readings.of(job.log)

    def said(self, job: Job) -> list[events.Event]:
        """The events of a job so far. The list is shared: read it, do not change it."""
        return self.reading(job).said

    def status(self, run: Run) -> Status | None:
        """Where a run's training stands."""
        return self.queue.index.entry(run).status
