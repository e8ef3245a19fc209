"""The run folder: what lies in it, its name, the list of runs, and whose room it is in.

    runs/<name>/
      settings.yaml     what a person chose; written once, when the run is created
      events.jsonl      what the worker says
      worker.json       which process works on it; worker.log its output
      stop              present once someone pressed Stop
      adapter/          the LoRA weights with tokenizer and template; whole when it is there
      best/             the weights at the best measurement, while a run that is to keep them trains
      held_out.jsonl    the pairs that training did not see
      about.json        title and notes that a person gave it
      votes.jsonl       blind votes between two who were compared while it was in view
      merge/ gguf/ push/   jobs of their own, each with an events.jsonl; merge/merged/ is the merged model

Status is not here: it is worked out by `jobs`, never stored.

A room is the folder of one person's runs: the studio's own folder, called home, for the one person at this machine, and
home/users/<name> for everyone who signs in. What is in a room belongs to that person.
"""

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

from studio import events, names, processes, stored_settings, unfinished
from studio.errors import StudioError
from studio.settings import Settings
from studio.stored_settings import Stored

NAME = names.RUN
SETTINGS = "settings.yaml"
USERS = names.USERS


@dataclass(frozen=True)
class Run:
    """One attempt: a folder."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def owner(self) -> str:
        """The user whose run it is; empty for that of the person at this machine."""
        return owner_of(self.folder.parent)

    @cached_property
    def stored(self) -> Stored:
        """Its settings as its file has them. Raises SettingsError where that cannot be read."""
        return stored_settings.of_file(self.folder / "settings.yaml")

    @property
    def settings(self) -> Settings:
        """What a person chose, also of a run of another version. Raises SettingsError where that cannot be read."""
        return self.stored.settings

    @property
    def created(self) -> float:
        """When it was asked for, in seconds since the epoch; 0 where that cannot be told."""
        try:
            return (self.folder / "settings.yaml").lstat().st_mtime
        except OSError:
            return 0.0

    @property
    def adapter(self) -> Path:
        return self.folder / "adapter"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def last_checkpoint(self) -> int | None:
        """The step of the newest checkpoint, or None if there is none; whether it is whole is seen when it is read."""
        return max(self.checkpointed, default=None)

    @property
    def checkpointed(self) -> list[int]:
        """The steps of which there are checkpoints, in order."""
        found = [folder.parent.name.removeprefix("step-") for folder in self.checkpoints.glob("step-*/manifest.json")]
        return sorted(int(step) for step in found if step.isascii() and step.isdigit())

    @property
    def held_out(self) -> Path:
        return self.folder / "held_out.jsonl"

    @property
    def merged(self) -> Path:
        return self.job("merge") / "merged"

    def job(self, kind: str) -> Path:
        """The folder of a job on this run: the run's own for training, one inside for the others."""
        return self.folder if kind == "train" else self.folder / kind


def room(home: Path, user: str = "") -> Path:
    """The room of a user; without a name that of the person at this machine."""
    return home / USERS / user if user else home


def rooms(home: Path) -> list[Path]:
    """All rooms of a studio, home first."""
    users = home / USERS
    named = users.iterdir() if users.is_dir() else ()
    return [home, *sorted(folder for folder in named if folder.is_dir() and not folder.is_symlink())]


def home_of(room: Path) -> Path:
    """The studio's folder, of any of its rooms."""
    return room.parent.parent if room.parent.name == USERS else room


def owner_of(room: Path) -> str:
    """The user whose room it is; empty for that of the person at this machine."""
    return room.name if room.parent.name == USERS else ""


def owner_of_job(folder: Path) -> str:
    """The user for whom a job works, of any folder below a room; empty for the person at this machine."""
    return next((owner for parent in folder.absolute().parents[:3] if (owner := owner_of(parent))), "")


def create(root: Path, settings: Settings, keeper: processes.Worker | None = None) -> Run:
    """A new run in `root`, queued. The folder appears whole: it is filled under a hidden name and then renamed.

    `keeper` is the process that keeps the token that was entered with it, and will start it.
    """
    root.mkdir(parents=True, exist_ok=True)
    while (root / (name := _new_name(settings))).exists():
        pass  # four characters collide now and then where many runs begin in one minute
    unfinished.clear_forgotten(root)
    draft = unfinished.named(root, name)
    try:
        draft.mkdir()
        (draft / SETTINGS).write_text(settings.to_yaml(), encoding="utf-8")
        if keeper is not None:
            processes.write(draft, keeper, processes.KEEPER)
        events.append(draft / events.FILE, events.Queued())
        os.replace(draft, root / name)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return Run(root / name)


def find(root: Path, name: str) -> Run:
    """The run of that name. Raises StudioError if there is none."""
    if not NAME.fullmatch(name) or not _is_one(root / name):
        raise StudioError(f"There is no run {name[:80]!r}. Choose one from the list.")
    return Run(root / name)


def listed(root: Path) -> list[Run]:
    """All runs in `root`, newest first."""
    return sorted(_folders(root), key=lambda run: (run.created, run.name), reverse=True)


def everywhere(home: Path) -> list[Run]:
    """The runs of all rooms, newest first."""
    return sorted((run for room in rooms(home) for run in _folders(room)), key=lambda run: (run.created, run.name), reverse=True)


def _folders(root: Path) -> Iterator[Run]:
    if root.is_dir():
        for folder in root.iterdir():
            if _is_one(folder):
                yield Run(folder)


def _is_one(folder: Path) -> bool:
    """Whether a folder is a run's: nothing in it is read through a link that leads elsewhere."""
    chosen = folder / SETTINGS
    return may_be_a_run(folder.name) and not folder.is_symlink() and not chosen.is_symlink() and chosen.is_file()


def may_be_a_run(name: str) -> bool:
    """Whether a folder of that name can be a run's."""
    return bool(NAME.fullmatch(name))


def _new_name(settings: Settings) -> str:
    """Model, day and minute for the eye; four random characters against collisions."""
    model = re.sub(r"[^a-z0-9]+", "-", Path(settings.model.name).name.lower()).strip("-")[:40] or "run"
    return f"{model}-{datetime.now():%m%d-%H%M}-{secrets.token_hex(2)}"
