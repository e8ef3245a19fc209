"""What a run was made from, by names that mean something elsewhere: its base on the Hub and at which commit, its pairs."""

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from studio import whole
from studio.practice import MODEL as PRACTICE_MODEL
from studio.runs import Run
from studio.settings import PRACTICE

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
PUSHED = "pushed.json"
FILES = {".jsonl", ".json", ".csv", ".parquet"}


def hub_base(run: Run) -> str | None:
    """The base's Hub id, or None for a folder of this machine and the practice model."""
    name = run.settings.model.name
    return name if name != PRACTICE and HUB_ID.fullmatch(name) and not Path(name).exists() else None


def hub_dataset(run: Run) -> str | None:
    """The dataset's Hub id, or None for a file and the practice pairs."""
    source = run.settings.data.source
    return source if is_on_hub(source) and source != PRACTICE else None


def is_on_hub(source: str) -> bool:
    return bool(HUB_ID.fullmatch(source)) and Path(source).suffix.lower() not in FILES


def base_commit(run: Run) -> str | None:
    """The commit of the base that the adapter was trained on, or that this machine has; None when it is not known."""
    with suppress(OSError, ValueError, TypeError, AttributeError):  # written down by newer versions
        if commit := json.loads((run.adapter / "base.json").read_text(encoding="utf-8")).get("commit"):
            return str(commit)
    found = _cached(run) if hub_base(run) else None
    return found.parent.name if found else None


def base_config(run: Run) -> dict[str, Any] | None:
    """The base's config.json, as far as this machine has it."""
    name = run.settings.model.name
    path = _cached(run) if hub_base(run) else (PRACTICE_MODEL if name == PRACTICE else Path(name)) / "config.json"
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads(path.read_text(encoding="utf-8")) if path else None
        return found if isinstance(found, dict) else None
    return None


def _cached(run: Run) -> Path | None:
    model = run.settings.model
    found = try_to_load_from_cache(model.name, "config.json", revision=model.revision or None)
    return Path(found) if isinstance(found, str) else None


def note_pushed(run: Run, what: str, repo: str, private: bool) -> None:
    """Write down beside the merged model in which repository it lies, until something else takes its place there."""
    if what == "merged":
        whole.write(run.merged.parent / PUSHED, json.dumps({"repo": repo, "private": private}))
    elif _noted(run).get("repo") == repo:
        (run.merged.parent / PUSHED).unlink()


def pushed_merged(run: Run) -> str | None:
    """The public repository that holds the run's merged model, or None."""
    told = _noted(run)
    return told["repo"] if told.get("private") is False and HUB_ID.fullmatch(str(told.get("repo"))) else None


def _noted(run: Run) -> dict[str, Any]:
    with suppress(OSError, ValueError, TypeError, RecursionError):
        return dict(json.loads((run.merged.parent / PUSHED).read_text(encoding="utf-8")))
    return {}
