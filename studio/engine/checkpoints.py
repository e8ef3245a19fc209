"""Sealed checkpoints: everything a run needs to go on as if it had never been cut off, or nothing.

A checkpoint is written under a hidden name, its files are forced to the disk, a manifest with their sizes and hashes comes
last, and then it gets its name. Tensors are safetensors, all else is JSON: nothing that is read here can run code.
"""

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from studio import unfinished
from studio.errors import StudioError

MANIFEST, FORMAT = "manifest.json", 1
NAME = re.compile(r"step-(\d{8,})", re.ASCII)
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint: its folder, the optimizer step after which it was taken, and what it was taken of."""

    folder: Path
    step: int
    identity: dict[str, Any]

    def tensors(self, name: str) -> Tensors:
        """One of its files of tensors."""
        return load_file(self.folder / f"{name}.safetensors")

    def facts(self, name: str) -> Any:
        """One of its files of JSON."""
        return json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))


def write(parent: Path, step: int, identity: dict[str, Any], tensors: dict[str, Tensors], facts: dict[str, Any]) -> Checkpoint:
    """Seal a checkpoint into `parent`. Raises OSError where the disk does not take it, and then nothing of it is left."""
    parent.mkdir(exist_ok=True)
    target, draft = parent / f"step-{step:08d}", unfinished.unique(parent)
    draft.mkdir()
    try:
        for name, content in tensors.items():
            # Copies: 8-bit optimizers let all weights share one table, which safetensors refuses.
            save_file({key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for key, tensor in content.items()},
                      draft / f"{name}.safetensors")
        for name, content in facts.items():
            (draft / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        files = {path.name: {"bytes": path.stat().st_size, "sha256": _forced(path)} for path in sorted(draft.iterdir())}
        manifest = {"format": FORMAT, "step": step, "identity": identity, "files": files}
        (draft / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        _forced(draft / MANIFEST)
        _force_folder(draft)
        if target.exists():  # an earlier attempt at this step, whole or damaged
            remove(target)
        os.replace(draft, target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    _force_folder(parent)
    return Checkpoint(target, step, identity)


def _forced(path: Path) -> str:
    """Force a file to the disk; its SHA-256."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _force_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- choosing ---------------------------------------------------------------------------------------------------------


def newest(parent: Path) -> tuple[Checkpoint | None, list[str]]:
    """The whole checkpoint of the highest step, and why those above it were passed over."""
    skipped = []
    for folder in _by_step(parent):
        try:
            return opened(folder), skipped
        except StudioError as error:
            skipped.append(str(error))
    return None, skipped


def of_step(parent: Path, step: int) -> Checkpoint:
    """The checkpoint of one step. Raises StudioError where there is none, or none that is whole."""
    try:
        return opened(parent / f"step-{step:08d}")
    except StudioError as error:
        raise StudioError(f"{error} Choose another step of this run.") from error


def opened(folder: Path) -> Checkpoint:
    """A checkpoint whose files are all there and unchanged. Raises StudioError naming what is not."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        step, identity, files = int(manifest["step"]), dict(manifest["identity"]), dict(manifest["files"])
        if manifest["format"] != FORMAT or f"step-{step:08d}" != folder.name or any(name != Path(name).name for name in files):
            raise ValueError("another format")
        for name, wanted in files.items():
            path = folder / name
            if path.is_symlink() or path.stat().st_size != wanted["bytes"] or _hash(path) != wanted["sha256"]:
                raise ValueError(f"{name} is not as it was written")
    except FileNotFoundError as error:
        raise StudioError(f"Checkpoint {folder.name} is not whole: {Path(error.filename).name} is missing.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StudioError(f"Checkpoint {folder.name} is damaged: {str(error)[:120]}.") from error
    return Checkpoint(folder, step, identity)


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _by_step(parent: Path) -> list[Path]:
    """Folders with a checkpoint's name, the highest step first; when they were written says nothing."""
    found = [folder for folder in (parent.iterdir() if parent.is_dir() else ()) if NAME.fullmatch(folder.name) and folder.is_dir()]
    return sorted(found, key=lambda folder: int(NAME.fullmatch(folder.name)[1]), reverse=True)


def prune(parent: Path, keep: int) -> None:
    """Remove what lies below the `keep` highest whole checkpoints, and what killed workers left of others."""
    whole = 0
    for folder in _by_step(parent):
        if whole >= keep:
            remove(folder)
            continue
        try:
            opened(folder)
        except StudioError:
            continue  # it may still tell somebody something, and takes no other one's place
        whole += 1
    unfinished.clear(parent)


def remove(folder: Path) -> None:
    """Remove a checkpoint so that no half of it can be taken for one."""
    gone = unfinished.unique(folder.parent)
    os.replace(folder, gone)
    unfinished.remove(gone)


def refuse_if_changed(checkpoint: Checkpoint, now: dict[str, Any]) -> None:
    """Raises StudioError naming what is no longer as it was when the checkpoint was taken."""
    changed = [f"{what} (was {_brief(was)}, is {_brief(now.get(what))})"
               for what, was in checkpoint.identity.items() if now.get(what) != was]
    if changed:
        raise StudioError(f"This run cannot go on from step {checkpoint.step}, since this has changed: {'; '.join(changed)}. "
                          "Put it back as it was, or start a new run.")


def _brief(value: Any) -> str:
    return str(value) if len(str(value)) <= 24 else f"{str(value)[:12]}…"
