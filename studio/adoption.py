"""Runs whose machine is gone: what they left on the Hub is found, looked through, and made a run again that can be resumed."""

import os
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download

from studio import events, names
from studio.errors import StudioError, explain
from studio.runs import Run
from studio.settings import Settings

FOLDER = "runs"
"""Where runs lie in a repository of checkpoints."""
PLACE = re.compile(rf"{FOLDER}/({names.RUN.pattern})/"
                   r"(?:(settings\.yaml|events\.jsonl)|checkpoint/step-(\d{8,12})/(\w+\.(?:safetensors|json)))", re.ASCII)
WHOLE = "manifest.json"
PATIENCE = 10
"""Seconds to wait for an answer of the Hub."""


@dataclass(frozen=True)
class Found:
    """A run on the Hub: its name, the step of its checkpoint, the repository with its commit, and its files there."""

    name: str
    step: int
    repo: str
    commit: str
    files: tuple[str, ...]


def found(repo: str, token: str | None = None) -> list[Found]:
    """The runs with a checkpoint in a repository, by name. Raises StudioError where it cannot be looked into."""
    if not repo or not names.ON_HUB.fullmatch(repo):
        raise StudioError("No repository was named. Enter the one to which the run pushed its checkpoints, as owner/name.")
    try:
        told = HfApi(token=token or None).repo_info(repo, timeout=PATIENCE)
    except Exception as error:  # whatever the Hub's client raises
        raise StudioError(explain(error, repo)) from error
    files = [(match, file.rfilename) for file in told.siblings or [] if (match := PLACE.fullmatch(file.rfilename))]
    whole = {match[1]: int(match[3]) for match, _ in files if match[4] == WHOLE}
    return [Found(name, step, repo, told.sha, tuple(path for match, path in files
                                                    if match[1] == name and match[3] in (None, f"{step:08d}")))
            for name, step in sorted(whole.items())]


def bring_back(room: Path, wanted: Found, token: str | None = None) -> Run:
    """Make the run anew in a room, as one that was stopped at its checkpoint. Raises StudioError; then nothing was made.

    What the checkpoint holds is checked against its manifest when the run is resumed.
    """
    if (room / wanted.name).exists():
        raise StudioError(f"Run {wanted.name} is here already. Choose it in the list of runs.")
    room.mkdir(parents=True, exist_ok=True)
    draft = room / f".back-{secrets.token_hex(4)}"
    try:
        for path in wanted.files:
            _, name, step, file = PLACE.fullmatch(path).groups()
            target = draft / name if name else draft / "checkpoints" / f"step-{step}" / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(hf_hub_download(wanted.repo, path, revision=wanted.commit, token=token or None), target)
        Settings.from_file(draft / "settings.yaml")
        events.append(draft / events.FILE, events.Stopped(step=wanted.step))
        os.replace(draft, room / wanted.name)
    except StudioError:
        raise
    except Exception as error:  # whatever the Hub's client raises
        raise StudioError(explain(error, wanted.repo)) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Run(room / wanted.name)
