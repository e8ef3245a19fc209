"""What a trainer is in the middle of, as plain tensors and plain facts, and the way back into it.

Together with the data's order, which follows from seed and step, this is all that the next step depends on.
"""

import dataclasses
import json
import random
from typing import Any

import numpy as np
import torch
from transformers import Trainer

from studio.engine.checkpoints import Checkpoint, Tensors

STATE = "trainer_state"
"""The one file that transformers reads by itself."""


def taken(trainer: Trainer) -> tuple[dict[str, Tensors], dict[str, Any]]:
    """A trainer's tensors and facts by file, right after an optimizer step."""
    optimizer, groups = _flat(trainer.optimizer.state_dict())
    generators, rest = _generators()
    scaler = trainer.accelerator.scaler
    state = json.loads(json.dumps(dataclasses.asdict(dataclasses.replace(trainer.state, log_history=[])), default=str))
    tensors = {"weights": trained(trainer.model), "optimizer": optimizer, "generators": generators}
    return tensors, {STATE: state, "optimizer": groups, "schedule": trainer.lr_scheduler.state_dict(), "generators": rest,
                     "scaler": scaler.state_dict() if scaler else None}


def trained(model: torch.nn.Module) -> Tensors:
    """The weights that are trained, by their names in the model."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def put_weights(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """The trained weights as they were. Raises KeyError for one that is missing."""
    found = checkpoint.tensors("weights")
    with torch.no_grad():
        for name, weight in trained(trainer.model).items():
            weight.copy_(found[name])


def put_optimizer(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Optimizer, schedule and loss scaler as they were."""
    trainer.optimizer.load_state_dict(_nested(checkpoint.tensors("optimizer"), checkpoint.facts("optimizer")))
    trainer.lr_scheduler.load_state_dict(checkpoint.facts("schedule"))
    if trainer.accelerator.scaler and (scaler := checkpoint.facts("scaler")):
        trainer.accelerator.scaler.load_state_dict(scaler)


# --- the optimizer's state --------------------------------------------------------------------------------------------


def _flat(state: dict[str, Any]) -> tuple[Tensors, dict[str, Any]]:
    """An optimizer's state as tensors named "parameter/name" (8-bit ones nest further) and the rest as JSON holds it."""
    tensors, plain = {}, {}

    def sort(key: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                sort(f"{key}/{name}", inner)
        elif isinstance(value, torch.Tensor):
            tensors[key] = value
        else:
            plain[key] = value

    for number, values in state["state"].items():
        sort(str(number), values)
    return tensors, {"plain": plain, "groups": state["param_groups"]}


def _nested(tensors: Tensors, rest: dict[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {}
    for key, value in (tensors | rest["plain"]).items():
        number, *path, name = key.split("/")
        inner = state.setdefault(int(number), {})
        for step in path:
            inner = inner.setdefault(step, {})
        inner[name] = value
    return {"state": state, "param_groups": rest["groups"]}


# --- random numbers ---------------------------------------------------------------------------------------------------


def _generators() -> tuple[Tensors, dict[str, Any]]:
    tensors = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors |= {f"cuda-{place}": state for place, state in enumerate(torch.cuda.get_rng_state_all())}
    kind, keys, *others = np.random.get_state()
    return tensors, {"python": random.getstate(), "numpy": [kind, keys.tolist(), *others]}


def put_generators(checkpoint: Checkpoint) -> None:
    """All random number generators as they were."""
    tensors, rest = checkpoint.tensors("generators"), checkpoint.facts("generators")
    torch.set_rng_state(tensors["torch"])
    cards = [state for name, state in sorted(tensors.items()) if name.startswith("cuda-")]
    if cards and torch.cuda.device_count() == len(cards):
        torch.cuda.set_rng_state_all(cards)
    version, internal, gauss = rest["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *others = rest["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *others))
