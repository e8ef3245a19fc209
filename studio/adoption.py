"""Runs whose machine is gone: what they left on the Hub is found, looked through, and made a run again that can be resumed."""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download

from studio import events, hub_access, names, pasted, plain_yaml, unfinished
from studio.errors import SettingsError, StudioError, explain
from studio.runs import Run, owner_of
from studio.settings import Settings

FOLDER = "runs"
"""Where runs lie in a repository of checkpoints."""
PLACE = re.compile(rf"{FOLDER}/({names.FOLDER_OF_A_RUN})/"
                   r"(?:(settings\.yaml|events\.jsonl)|checkpoint/step-(\d{8,12})/(\w+\.(?:safetensors|json)))", re.ASCII)
WHOLE = "manifest.json"
PATIENCE = 10
"""Seconds to wait for an answer of the Hub."""
LARGEST = {"settings.yaml": plain_yaml.LARGEST, "events.jsonl": 512 * 2**20}
"""Bytes of files that the page itself reads. A checkpoint may be as large as the disk has room for."""
SPARE = 2**30
"""Bytes that bringing a run back leaves free on the disk."""


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
    pasted.refuse(repo)  # a name is sent to the Hub in an address, and addresses stand in logs
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


def bring_back(room: Path, wanted: Found, token: str | None = None,
               permitted: Callable[[Settings], Settings] = lambda settings: settings) -> Run:
    """Make the run anew in a room, as one that was stopped at its checkpoint. Raises StudioError; then nothing was made.

    Its settings come from outside like everything else there: `permitted` raises SettingsError for those that the person
    who restores the run could not choose in the form. What the checkpoint holds is checked against its manifest when the run is resumed.
    """
    if not names.RUN.fullmatch(wanted.name):
        raise StudioError(f"{wanted.name!r} is the name of a folder of the studio's own and not of a run, so nothing was brought back. "
                          "Rename its folder in the repository.")
    if (room / wanted.name).exists():
        raise StudioError(f"Run {wanted.name} is here already. Choose it in the list of runs.")
    room.mkdir(parents=True, exist_ok=True)
    unfinished.clear_forgotten(room)
    draft = unfinished.unique(room)
    try:
        if owner_of(room):
            hub_access.refuse_without(wanted.repo, "model", token)
        _refuse_sizes(room, wanted, token)
        for path in wanted.files:
            _, name, step, file = PLACE.fullmatch(path).groups()
            target = draft / name if name else draft / "checkpoints" / f"step-{step}" / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(hf_hub_download(wanted.repo, path, revision=wanted.commit, token=token or None), target)
        _refuse_settings(Settings.from_file(draft / "settings.yaml"), permitted)
        events.append(draft / events.FILE, events.Stopped(step=wanted.step))
        os.replace(draft, room / wanted.name)
    except StudioError:
        raise
    except Exception as error:  # whatever the Hub's client raises
        raise StudioError(explain(error, wanted.repo)) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Run(room / wanted.name)


def _refuse_sizes(room: Path, wanted: Found, token: str | None) -> None:
    """Raises StudioError for files that are larger than a run's are, or for which the disk has no room."""
    asked = HfApi(token=token or None).get_paths_info(wanted.repo, list(wanted.files), revision=wanted.commit)
    told = {info.path: info.size for info in asked}
    for path, size in told.items():
        if size > LARGEST.get(Path(path).name, size):
            raise StudioError(f"{path} in {wanted.repo} has {size / 1e6:,.0f} MB, which no run's has, so nothing was brought back. "
                              "Choose another run.")
    if (needed := sum(told.values()) + SPARE) > (free := shutil.disk_usage(room).free):
        raise StudioError(f"The disk has no room for this run: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free. "
                          "Free some space, then bring it back.")


def _refuse_settings(settings: Settings, permitted: Callable[[Settings], Settings]) -> None:
    try:
        permitted(settings)
    except SettingsError as error:
        told = " ".join(f"{field}: {text}" for field, text in error.problems.items())
        raise StudioError(f"This run's settings are not open to you, so it was not brought back. {told}") from error
