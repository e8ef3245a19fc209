"""Checkpoints on the Hub: while a run trains, its latest checkpoint goes to a private repository, so that the run survives its machine.

One commit a checkpoint, which takes the place of the one before. What fails is noted and tried again with the next; training
neither waits for it nor fails of it.
"""

import os
import shutil
import threading
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from studio import events, unfinished
from studio.adoption import FOLDER
from studio.engine import hub
from studio.engine.checkpoints import Checkpoint
from studio.engine.worker import Desk
from studio.errors import StudioError, explain
from studio.runs import Run

PATIENCE = 900
"""Seconds that the end of a run waits for its last checkpoint."""


class Offsite:
    """Sends one checkpoint at a time, always the latest; those that come meanwhile and are overtaken are left out."""

    def __init__(self, desk: Desk, run: Run):
        self.desk, self.run, self.repo = desk, run, ""
        self._next: tuple[int, Path] | None = None
        self._changing, self._thread = threading.Lock(), None
        self._failed = ""

    def send(self, checkpoint: Checkpoint) -> None:
        """Let a checkpoint be sent as soon as the one before is. Returns at once."""
        draft = unfinished.unique(self.run.folder)
        draft.mkdir()
        for path in checkpoint.folder.iterdir():
            os.link(path, draft / path.name)  # it may be pruned before its turn comes
        with self._changing:
            if self._next is not None:
                shutil.rmtree(self._next[1], ignore_errors=True)
            self._next = checkpoint.step, draft
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True, name="offsite")
                self._thread.start()

    def close(self) -> None:
        """Wait for the last one."""
        thread = self._thread
        if thread is not None:
            thread.join(PATIENCE)

    def _work(self) -> None:
        while True:
            with self._changing:
                if self._next is None:
                    self._thread = None
                    return
                (step, draft), self._next = self._next, None
            try:
                self._push(step, draft)
                self._failed = ""
            except Exception as error:  # whatever the Hub's client raises: the run is worth more than its copy
                words = explain(error, self.repo or self.run.settings.training.push_checkpoints_to)
                if words != self._failed:  # once, and not with every checkpoint
                    self.desk.say(events.Noted(f"The checkpoint of step {step} is on this machine only. {words}"))
                self._failed = words
            finally:
                shutil.rmtree(draft, ignore_errors=True)

    def _push(self, step: int, draft: Path) -> None:
        api, below = HfApi(token=hub.token(self.desk)), f"{FOLDER}/{self.run.name}"
        if not self.repo:
            self.repo = hub.full_name(api, self.run.settings.training.push_checkpoints_to)
        found = hub.existing(api, self.repo, "model")
        if found is not None and not found.private:
            raise StudioError(f"{self.repo} is public, and checkpoints go to a private repository only. "
                              "Make it private on the Hub, or choose another name.")
        api.create_repo(self.repo, private=True, exist_ok=True)
        target = f"{below}/checkpoint/step-{step:08d}"
        additions = [CommitOperationAdd(f"{target}/{path.name}", str(path)) for path in sorted(draft.iterdir())]
        additions += [CommitOperationAdd(f"{below}/{name}", (self.run.folder / name).read_bytes())
                      for name in ("settings.yaml", events.FILE)]
        before = [file.rfilename for file in (found.siblings if found else None) or []]
        gone = [CommitOperationDelete(name) for name in before
                if name.startswith(f"{below}/checkpoint/") and not name.startswith(f"{target}/")]
        api.create_commit(self.repo, additions + gone, commit_message=f"Step {step} of {self.run.name}")
