"""An adapter on disk: which base it belongs to, and that it is sound, before it speaks, is merged or is shared."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from studio import names, seal
from studio.engine import snapshot
from studio.engine.snapshot import Origin
from studio.errors import StudioError
from studio.runs import Run
from studio.settings import PRACTICE, ModelSettings

FILE = "base.json"
"""Beside the adapter's weights: the base that they are nothing without."""
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
NAMES_CODE = ("auto_mapping", "megatron_config")
"""What an adapter's configuration can say to have a module imported."""


def sign(folder: Path, base: Origin) -> None:
    """Write down which base the adapter in a folder was trained on."""
    (folder / FILE).write_text(json.dumps(asdict(base), indent=1), encoding="utf-8")


def origin(folder: Path) -> Origin | None:
    """The base that the adapter in a folder was trained on; None for one of an older version, which does not say."""
    try:
        return Origin(**json.loads((folder / FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise StudioError(f"{FILE} of the adapter in {folder.parent.name} cannot be read, so its base is not known. "
                          "Restore the file, or train again.") from error


def pinned(run: Run) -> ModelSettings:
    """The run's model at the very commit that the adapter was trained on, wherever its branch has moved since."""
    run.stored.refuse_to_load()
    was = origin(run.adapter)
    return run.settings.model.model_copy(update={"revision": was.commit}) if was and was.commit else run.settings.model


def check(run: Run, token: str | None = None, fetch: bool = True) -> None:
    """Raises StudioError for an adapter that is not sound or not whole, with another template, or with another base than it had.

    A base that is not on this machine is fetched, or with `fetch` off not looked at.
    """
    seal.check(run, run.adapter)
    refuse_other_than_lora(run)
    refuse_what_is_not_finite(run.adapter)
    was, settings = origin(run.adapter), pinned(run)
    if was is None:
        return
    if was.name != settings.name:
        raise StudioError(f"This adapter was trained on {was.name}, and the run's settings name {settings.name}. "
                          "Put back the adapter or the settings of this run.")
    if fetch or settings.name == PRACTICE or names.is_path(settings.name):
        now = snapshot.origin(settings, snapshot.of(settings, token))
        if now.weights != was.weights:
            raise StudioError(f"{settings.name} no longer has the weights that this adapter was trained on "
                              f"({now.weights}, was {was.weights}), and without them it would say nothing of what it learned. "
                              "Put the base back as it was, or train again.")


def refuse_other_base(run: Run, base: Origin, instead: str) -> None:
    """Raises StudioError where a run's adapter was trained on other weights than those of a base; it ends with what to do `instead`."""
    was = origin(run.adapter)
    if was is not None and was.weights != base.weights:
        raise StudioError(f"The adapter of run {run.name} was trained on {was.name} with other weights than this run's base. {instead}")


def refuse_other_than_lora(run: Run) -> None:
    """Raises StudioError for files that PEFT would follow to other places, or read as pickles."""
    try:
        config = json.loads((run.adapter / CONFIG).read_text(encoding="utf-8"))
        strange = config.get("peft_type") != "LORA" or any(config.get(name) for name in NAMES_CODE)
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise StudioError(f"{CONFIG} of run {run.name} cannot be read. Restore the adapter, or train again.") from error
    if strange:
        raise StudioError(f"{CONFIG} of run {run.name} describes something else than the LoRA adapter that the studio wrote. "
                          "Restore the adapter, or train again.")
    if not (run.adapter / WEIGHTS).is_file():
        raise StudioError(f"The adapter of run {run.name} holds no safetensors weights, and weights of other kinds can run code "
                          f"when they are read. Restore {WEIGHTS}, or train again.")


def refuse_what_is_not_finite(folder: Path) -> None:
    """Raises StudioError naming the first tensor in a folder's safetensors files with a number that is not finite."""
    for path in sorted(folder.glob("*.safetensors")):
        for name, weight in _tensors(path):
            if not torch.isfinite(weight).all():
                raise StudioError(f"{name} in {folder.name}/{path.name} holds numbers that are not finite, so it is of no use. "
                                  "Train again with a lower learning rate or with bfloat16 as compute type.")


def _tensors(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (no mapping)
                yield name, file.get_tensor(name)
    except SafetensorError as error:
        raise StudioError(f"{path.parent.name}/{path.name} is damaged ({str(error)[:80]}). Restore it, or make it anew.") from error
