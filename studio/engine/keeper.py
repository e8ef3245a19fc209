"""Takes a run's checkpoints, and finds the one from which it goes on."""

import hashlib

from peft import PeftModel

from studio import events
from studio.engine import checkpoints, space
from studio.engine.checkpoints import Checkpoint
from studio.engine.offsite import Offsite
from studio.engine.orpo import offload, resuming
from studio.engine.orpo.trainer import ORPOTrainer
from studio.engine.tokens import Tokens
from studio.engine.worker import Desk
from studio.runs import Run

LOOKED_AT = 256
"""Numbers of each frozen weight that go into the base's fingerprint."""
DECIDING = ("model", "adapter", "training")
FREE = {"model.offload_embeddings", "training.checkpoint_every", "training.keep_checkpoints", "training.report_to",
        "training.push_checkpoints_to"}
"""Settings of these sections that may change between two halves of a run."""


class Keeper:
    """Writes checkpoints of one run while it trains, keeps the latest, and knows what they are checkpoints of."""

    def __init__(self, desk: Desk, run: Run, trainer: ORPOTrainer, pairs: Tokens):
        self.desk, self.run, self.trainer = desk, run, trainer
        form = run.settings.to_form()
        self.identity = {
            "pairs, tokenizer, template or maximum length": pairs.digest, "base model": fingerprint(trainer.model),
            **{name: form[name] for name in form if name.split(".")[0] in DECIDING and name not in FREE}}
        self.offsite = Offsite(desk, run) if run.settings.training.push_checkpoints_to else None

    def newest(self) -> Checkpoint | None:
        """The checkpoint to go on from, said, with those that were passed over; None for a run that begins.

        Raises StudioError if it is of other pairs, another base or other settings.
        """
        found, skipped = checkpoints.newest(self.run.checkpoints)
        for words in skipped:
            self.desk.say(events.Noted(f"{words} An earlier one is taken."))
        if found is not None:
            checkpoints.refuse_if_changed(found, self.identity)
            self.desk.say(events.Resumed(found.step))
        return found

    def keep(self, step: int) -> None:
        """Seal a checkpoint of what the trainer is in the middle of, and forget the oldest."""
        tensors, facts = resuming.taken(self.trainer)
        needed = sum(tensor.nbytes for part in tensors.values() for tensor in part.values())
        with space.told(self.run.folder, f"The checkpoint of step {step}", needed):
            sealed = checkpoints.write(self.run.checkpoints, step, self.identity, tensors, facts)
        self.desk.say(events.Checkpointed(step))
        if self.offsite:
            self.offsite.send(sealed)
        checkpoints.prune(self.run.checkpoints, self.run.settings.training.keep_checkpoints)

    def close(self) -> None:
        """Wait until the last checkpoint is where it should be."""
        if self.offsite:
            self.offsite.close()


def fingerprint(model: PeftModel) -> str:
    """A hash of some numbers of every frozen weight: another base, or another version of it, has another."""
    digest = hashlib.sha256()
    for name, weight in offload.named_weights(model):
        if not weight.requires_grad:
            digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
            digest.update(weight.detach().flatten()[:LOOKED_AT].float().cpu().numpy().tobytes())  # float32 holds all of them exactly
    return digest.hexdigest()[:16]
