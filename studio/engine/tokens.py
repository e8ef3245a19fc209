"""Pairs -> token ids: each text tokenized once, in batches, and kept in a file that the next run with the same takes.

The file is read through the page cache, so that a million pairs need no more memory than the few being looked at.
Nothing is lost in silence: pairs that leave nothing to learn are counted, with their questions, and so is what the chat template
leaves out of them.
"""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from huggingface_hub.constants import HF_HOME
from transformers import PreTrainedTokenizerBase

from studio import unfinished
from studio.begun import tells_the_time
from studio.engine import bounds, fidelity, texts
from studio.engine.asking import Asking, Common
from studio.preferences.pairs import Account, Pair

CACHE = Path(HF_HOME) / "orpo-studio" / "tokens"
KEPT_SETS = 20
FORMAT = "2"
"""Goes up when the same pairs would give other ids, so that old files are not taken."""


@dataclass(frozen=True)
class Encoded:
    """A pair as token ids, int32. `prompt` counts the leading tokens that both answers share and that are not scored.

    `lost` are the bits of `fidelity` for what the chat template left out. `begun` is the text with which the template begins an answer
    where it asks for one, and with which this pair's better answer does not begin.
    """

    prompt: int
    chosen: Sequence[int] | np.ndarray
    rejected: Sequence[int] | np.ndarray
    lost: int = 0
    begun: str = ""


class Tokens(Sequence[Encoded]):
    """Encoded pairs, read from their file when they are asked for.

    ids: all token ids one after another. bounds: (pairs, 4) start in ids, prompt, chosen's length, rejected's length.
    lost: (pairs,) what the chat template left out of each, as bits. `asking` is how all of them ask for an answer.
    """

    def __init__(self, ids: np.ndarray, bounds: np.ndarray, lost: np.ndarray | None = None, asking: Asking = Asking()):  # noqa: B008
        self.ids, self.bounds, self.asking = ids, bounds, asking
        self.lost = np.zeros(len(bounds), dtype=np.uint32) if lost is None else lost

    @classmethod
    def load(cls, folder: Path) -> "Tokens":
        """The set in a folder of the cache."""
        return cls(np.load(folder / "ids.npy", mmap_mode="r"), np.load(folder / "bounds.npy"), np.load(folder / "lost.npy"),
                   Asking.load(folder))

    def __len__(self) -> int:
        return len(self.bounds)

    def __getitem__(self, place: int) -> Encoded:
        start, prompt, chosen, rejected = (int(bound) for bound in self.bounds[place])
        middle = start + chosen
        return Encoded(prompt, np.asarray(self.ids[start:middle]), np.asarray(self.ids[middle : middle + rejected]))

    def at(self, places: Sequence[int]) -> "Tokens":
        """Only these pairs, in this order, from the same file."""
        places = np.asarray(places, dtype=np.int64)
        return Tokens(self.ids, self.bounds[places], self.lost[places], self.asking)

    @property
    def digest(self) -> str:
        """A hash of these pairs' ids and their order."""
        digest = hashlib.sha256(np.ascontiguousarray(self.bounds[:, 1:]).tobytes())
        for start, _, chosen, rejected in self.bounds.tolist():
            digest.update(self.ids[start : start + chosen + rejected].tobytes())
        return digest.hexdigest()[:16]

    @property
    def lengths(self) -> np.ndarray:
        """(pairs, 3): prompt, chosen and rejected in tokens; the two texts include the prompt."""
        return self.bounds[:, 1:]


# --- tokenizing -------------------------------------------------------------------------------------------------------


def tokenize(found: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, max_length: int, cache: Path = CACHE,
             progress: Callable[[int], None] = lambda done: None, moment: datetime | None = None) -> Tokens:
    """Each pair as the model will see it, cut at `max_length` tokens; scored answers may be left empty by the cut.

    `moment` is the date of the run, for a template that writes one. Raises DataError if the chat template cannot hold a conversation.
    """
    folder = cache / _digest(found, tokenizer, max_length, moment)
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        unfinished.clear_forgotten(cache)
        draft = unfinished.unique(cache)
        draft.mkdir()
        try:
            _write(draft, found, tokenizer, max_length, progress, moment)
            _settle(draft, folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        _prune(cache)
    os.utime(folder)
    return Tokens.load(folder)


def _settle(draft: Path, folder: Path) -> None:
    """Give the finished set its name, unless another run has just finished the same."""
    try:
        draft.rename(folder)
    except OSError:
        if not folder.exists():
            raise


def _write(folder: Path, found: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, max_length: int,
           progress: Callable[[int], None], moment: datetime | None) -> None:
    bounds, lost, written, common = [], [], 0, Common()
    with open(folder / "ids.raw", "wb") as file:
        for batch in texts.batches(found):
            for pair, spoken in zip(encoded(batch, tokenizer, max_length, moment), batch, strict=True):
                for ids in (pair.chosen, pair.rejected):
                    file.write(np.asarray(ids, dtype=np.int32).tobytes())
                bounds.append((written, pair.prompt, len(pair.chosen), len(pair.rejected)))
                lost.append(pair.lost)
                common.see(pair.begun, spoken.tools)
                written += len(pair.chosen) + len(pair.rejected)
            progress(len(bounds))
    np.save(folder / "bounds.npy", np.array(bounds, dtype=np.int64).reshape(-1, 4))
    np.save(folder / "lost.npy", np.array(lost, dtype=np.uint32))
    common.asking().save(folder)
    _with_header(folder / "ids.raw", folder / "ids.npy", written)


def _with_header(raw: Path, path: Path, count: int) -> None:
    """Turn raw int32 into a .npy file: how long it is, is known only at the end."""
    with open(path, "wb") as target, open(raw, "rb") as source:
        np.lib.format.write_array_header_1_0(target, {"descr": "<i4", "fortran_order": False, "shape": (count,)})
        shutil.copyfileobj(source, target)
    raw.unlink()


def encoded(found: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, max_length: int | None = None,
            moment: datetime | None = None) -> Iterator[Encoded]:
    """The pairs of one batch. The two texts are tokenized, the prompt only found in them."""
    prompts, chosen, rejected = texts.rendered(found, tokenizer, moment)
    lost = texts.losses(found, (prompts, chosen, rejected), tokenizer, moment)
    with bounds.bounded("Making tokens of these texts with the model's tokenizer"):
        better = tokenizer(chosen, add_special_tokens=False)
        worse = tokenizer(rejected, add_special_tokens=False)
    for place, three in enumerate(zip(prompts, chosen, rejected, strict=True)):
        common = len(os.path.commonprefix(three))
        prompt = min(_tokens_before(better, place, common, tokenizer, three[1]),
                     _tokens_before(worse, place, common, tokenizer, three[2]))
        yield Encoded(prompt, _ended(better["input_ids"][place], prompt, tokenizer)[:max_length],
                      _ended(worse["input_ids"][place], prompt, tokenizer)[:max_length], lost[place],
                      three[0][len(os.path.commonprefix(three[:2])) :])


def _tokens_before(encoding, place: int, common: int, tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """How many tokens end within the first `common` characters; one that reaches beyond belongs to the answer."""
    ids = encoding["input_ids"][place]
    if not encoding.is_fast:
        alone = tokenizer(text[:common], add_special_tokens=False)["input_ids"]
        return next((at for at, (one, two) in enumerate(zip(alone, ids, strict=False)) if one != two), min(len(alone), len(ids)))
    for at in range(common, len(text)):
        if (token := encoding.char_to_token(place, at)) is not None:
            return token
    return len(ids)


def _ended(ids: list[int], prompt: int, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """With an end, where the template writes none: a model that never sees one does not learn to stop."""
    end = tokenizer.eos_token_id
    return ids if end is None or end in ids[prompt:] else ids + [end]


def _digest(found: Sequence[Pair], tokenizer: PreTrainedTokenizerBase, max_length: int, moment: datetime | None) -> str:
    """A name for what these pairs become, which changes with anything that changes the ids."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    vocabulary = backend.to_str() if backend else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    digest = hashlib.sha256(json.dumps([FORMAT, max_length, tokenizer.chat_template, tokenizer.eos_token_id]).encode())
    digest.update(vocabulary.encode(errors="surrogatepass"))
    if tells_the_time(tokenizer.chat_template):  # else yesterday's texts would be taken for today's
        digest.update((moment or datetime.now()).isoformat().encode())
    for pair in found:
        digest.update(json.dumps([pair.prompt, pair.chosen, pair.rejected, pair.tools]).encode())
    return digest.hexdigest()[:32]


def _prune(cache: Path) -> None:
    """Forget all but the sets used last."""
    sets = sorted((folder for folder in cache.iterdir() if not folder.name.startswith(".")), key=lambda folder: folder.stat().st_mtime)
    for folder in sets[:-KEPT_SETS]:
        shutil.rmtree(folder, ignore_errors=True)


# --- what is left to learn --------------------------------------------------------------------------------------------


class Fitting(NamedTuple):
    """The places of the pairs that teach something, and which others were left out for which reason."""

    places: list[int]
    left_out: dict[str, list[int]]

    def in_words(self, found: Sequence[Pair]) -> str:
        """Counts with reasons as `Account` says them, then the first few questions by name."""
        counts = Counter({why: len(places) for why, places in self.left_out.items()})
        reading = Account(rows=len(self.places) + counts.total(), pairs=len(self.places), left_out=counts)
        first = [found[place].prompt[-1]["content"] for places in self.left_out.values() for place in places][:3]
        named = "; ".join(f"“{' '.join(text.split())[:60]}”" for text in first)
        return f"{reading.in_words()} The first of them: {named}."


def fitting(tokens: Tokens, max_length: int) -> Fitting:
    """Which pairs leave something to learn after what the chat template leaves out and the cut at `max_length`.

    A prompt that fills `max_length` leaves an empty answer, whose mean log-probability is 0/0: one such pair turns
    every weight of the adapter into NaN.
    """
    places, left_out = [], {}
    for place, (prompt, chosen, rejected) in enumerate(tokens.lengths.tolist()):
        if tokens.lost[place] & fidelity.EMPTY:
            reason = "have an answer of which the chat template writes nothing"
        elif tokens.lost[place] & fidelity.ALIKE:
            reason = "have answers that the chat template writes alike"
        elif max(1, prompt) >= min(chosen, rejected):
            reason = f"have a question that fills the maximum length of {max_length}"
        elif chosen == rejected and np.array_equal((pair := tokens[place]).chosen, pair.rejected):
            reason = "have answers that are the same after the cut at the maximum length"
        else:
            places.append(place)
            continue
        left_out.setdefault(reason, []).append(place)
    return Fitting(places, left_out)
