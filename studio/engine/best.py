"""The weights at the best measurement of a run so far: on the disk beside it, so that a run that was cut off still has them."""

import math
import shutil

import torch

from studio.engine import checkpoints, space
from studio.engine.checkpoints import Checkpoint
from studio.engine.orpo import resuming
from studio.runs import Run

FOLDER = "best"


class Best:
    """Keeps one measurement's weights, those at the lowest held-out loss. `model` is the one that learns."""

    def __init__(self, run: Run, model: torch.nn.Module):
        self.model, self._folder = model, run.folder / FOLDER

    @property
    def kept(self) -> Checkpoint | None:
        """What is kept, if it is whole."""
        return checkpoints.newest(self._folder)[0]

    def offer(self, step: int, loss: float) -> bool:
        """Keep the model's weights if no measurement before gave so low a loss. Returns whether they are kept.

        Raises NoSpaceError where the disk is full.
        """
        before = self.kept
        if not math.isfinite(loss) or (before is not None and loss >= self.loss_of(before)):
            return False
        weights = resuming.trained(self.model)
        needed = sum(weight.nbytes for weight in weights.values())
        with space.told(self._folder.parent, f"The best measurement so far, that of step {step},", needed):
            now = checkpoints.write(self._folder, step, {}, {"weights": weights}, {"loss": loss})
        for other in self._folder.iterdir():
            if other != now.folder:
                checkpoints.remove(other)
        return True

    @staticmethod
    def loss_of(kept: Checkpoint) -> float:
        """The held-out loss of that measurement."""
        return float(kept.facts("loss"))

    def forget(self) -> None:
        """Remove it: of a run that begins, or that has made it its adapter."""
        shutil.rmtree(self._folder, ignore_errors=True)
