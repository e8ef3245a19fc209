"""The merge job: python -m studio.engine.merge RUN/merge. Base and adapter become one model in 16 bits.

The result is proven before it is kept: it must say what base and adapter said, with finite weights and the same template.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from studio import events, unfinished
from studio.engine import adapter, model, portable, proof, snapshot, space, vocabulary
from studio.engine.stopping import StopRequested
from studio.engine.worker import Desk, work
from studio.errors import StudioError
from studio.runs import Run

TOLERANCE = {torch.bfloat16: 0.8, torch.float16: 0.1}
"""How far log-probabilities may differ. Rounding alone gave 0.50 and 0.06 in an untrained network of 16 layers,
which amplifies it more than a trained one: the practice model gives 0.07 in bfloat16."""

MARGIN = 64 * 2**20
"""Bytes for tokenizer, configuration and the file system itself."""


def merge(desk: Desk) -> events.Event | None:
    """The whole job. Returns Stopped if it was asked to end; then nothing is left behind."""
    try:
        with closing(_phases(desk, Run(desk.folder.parent))) as phases:
            for _ in phases:
                desk.stopping.heed()
    except StopRequested:
        return events.Stopped(step=0)
    return None


def _phases(desk: Desk, run: Run) -> Iterator[None]:
    """The work, phase by phase; at each yield it may be left."""
    if not run.adapter.is_dir():
        raise StudioError("This run has no adapter yet. Let it train to the end, then merge.")
    desk.enter("loading")
    _settle(run.merged)  # before anything can fail: the earlier result stays available
    adapter.check(run, desk.token)
    tokenizer = vocabulary.read(run.adapter, run.name)
    source = snapshot.of(adapter.pinned(run), desk.token)
    base = model.load_base(adapter.pinned(run), tokenizer, desk.token, quantized=False, on="cpu", consent=desk.consent)
    refuse_if_short(_bytes(base) + MARGIN, desk.folder)
    yield
    desk.enter("merging")
    tuned = model.worn(base, run.adapter, torch_device="cpu").eval()
    asked = proof.prompts(run, tokenizer)
    # Base and adapter are heard before the merge, which works in place: the weights are never in memory twice.
    expected = proof.hear(tuned, asked)
    with tuned.disable_adapter():
        plain = proof.hear(tuned, asked)
    merged = tuned.merge_and_unload(safe_merge=True)
    yield
    desk.enter("checking")
    _refuse_if_not_finite(merged)
    difference = proof.difference(proof.hear(merged, asked), expected)
    _refuse_if_different(difference, merged.dtype)
    for sentence in _in_words(difference, proof.difference(plain, expected), len(asked)):
        desk.say(events.Noted(sentence))
    yield
    desk.enter("saving")
    with whole(run.merged) as draft:
        save(merged, tokenizer, source, draft)
    desk.say(events.Saved(step=0, path=run.merged.name))


def refuse_if_short(needed: int, folder: Path) -> None:
    """Raises NoSpaceError if the disk under `folder` has fewer free bytes than `needed`."""
    space.refuse_if_short(needed, folder, "The merged model", "merge again; the adapter is untouched")


def _bytes(base: PreTrainedModel) -> int:
    """What the weights take on disk; tied ones are written once."""
    return sum(weight.numel() * weight.element_size() for weight in base.parameters())


def _refuse_if_not_finite(merged: PreTrainedModel) -> None:
    for name, weight in merged.state_dict().items():
        if not torch.isfinite(weight).all():
            raise StudioError(f"The merged {name} holds numbers that are not finite, so nothing was saved. "
                              "Train again with a lower learning rate or with bfloat16 as compute type.")


def _refuse_if_different(difference: float, dtype: torch.dtype) -> None:
    if not difference <= TOLERANCE[dtype]:
        raise StudioError(f"The merged model does not say what base and adapter say: next-token log-probabilities "
                          f"differ by {difference:.3f}, more than {TOLERANCE[dtype]}. Use the adapter itself; nothing was saved.")


def _in_words(difference: float, effect: float, prompts: int) -> Iterator[str]:
    yield (f"The merged model says what base and adapter say: after {prompts} prompts the log-probabilities of the likeliest "
           f"next tokens differ by at most {difference:.4f}, while the adapter moves the base's by up to {effect:.4f}.")
    if difference > effect / 2:
        yield ("This adapter changes so little that 16 bits round most of it away. "
               "Use the adapter itself, or train longer or with a higher learning rate.")


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """A hidden folder to write into: it takes the place of `folder` when all went well and vanishes when not."""
    draft, old = unfinished.named(folder.parent, folder.name), _replaced(folder)
    unfinished.remove(draft)
    _settle(folder)
    draft.mkdir()
    try:
        yield draft
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    if folder.exists():
        os.replace(folder, old)
    os.replace(draft, folder)
    shutil.rmtree(old, ignore_errors=True)


def _replaced(folder: Path) -> Path:
    """Where the earlier result is kept while the new one takes its place."""
    return folder.with_name(f".{folder.name}.old")


def _settle(folder: Path) -> None:
    """Recover from a job killed while replacing a result: restore the previous result if the new one is missing."""
    old = _replaced(folder)
    if old.exists() and not folder.exists():
        os.replace(old, folder)
    shutil.rmtree(old, ignore_errors=True)


def save(merged: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, source: Path, folder: Path) -> None:
    """Weights, config, tokenizer, template and generation settings; `source` holds the base's. Raises StudioError if they changed by it."""
    portable.save_model(merged, source, _stops(merged, tokenizer), tokenizer.pad_token_id, folder)
    portable.save_tokenizer(tokenizer, folder)


def _stops(merged: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The end of a turn, and wherever the base stopped."""
    stops = {tokenizer.eos_token_id, *_listed(merged.generation_config.eos_token_id)} - {None}
    # The end of a turn comes first: a reader that takes only one id must not run on into the next turn.
    return sorted(stops, key=lambda stop: (stop != tokenizer.eos_token_id, stop))


def _listed(value) -> list:
    return value if isinstance(value, list) else [value]


if __name__ == "__main__":
    sys.exit(work(merge, computes_on=lambda desk: "cpu"))
