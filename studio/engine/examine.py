"""The examination of a dataset: python -m studio.engine.examine FOLDER.

Reads request.yaml, walks through the pairs once with bounded memory, leaves the pairs for the page to look at and,
last and whole, examination.json.
"""

import os
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from studio import events
from studio.engine import data
from studio.engine.data import Stream
from studio.engine.worker import Desk, work
from studio.errors import DataError, explain
from studio.examination import FILE, Examination, Lengths, Shelving, Spread
from studio.preferences import checks, doctor
from studio.preferences.findings import NAMED, Finding, Seen
from studio.preferences.pairs import Pair
from studio.settings import Settings

MEASURED = 2000
"""Pairs whose tokens are counted: a share of 5 % is then known to within one."""
BARS = 24
SHELF_BYTES = 4 * 1024**3
DISK_SHARE = 0.25
"""Of the free disk, what the examined pairs may take at most."""


class Stopped(Exception):  # noqa: N818 - a person's wish, no error
    """Somebody pressed Cancel."""


def examine(desk: Desk) -> events.Event | None:
    """The whole job. Returns Stopped if it was asked to end early; nothing is left then."""
    settings = Settings.from_file(desk.folder / "request.yaml")
    desk.enter("reading")
    stream = data.stream(settings.data, desk.token)
    walk = Walk(desk, stream, settings.data.seed)
    try:
        findings = doctor.examine(walk)
    except Stopped:
        return events.Stopped(step=0)
    finally:
        walk.shelving.close()
    account = stream.account
    if not account.pairs:
        raise DataError(f"{account.in_words()} Check the columns, or choose another dataset.")
    drawn = data.drawn(account.pairs, settings.data)
    held_out = data.held_out_count(len(drawn), settings.data)
    leaks, held_out = walk.leaks(drawn, held_out)
    findings = leaks + findings
    desk.enter("counting tokens")
    lengths, why_not, told = measured(settings, list(walk.sample), desk)
    findings = sorted(findings + told, key=lambda finding: doctor.GRAVITY.index(finding.weight))
    verdict, sentence = doctor.verdict(findings, len(drawn), account.left_out.total())
    _write(desk.folder / FILE, Examination(
        stream.source.name, stream.source.commit, stream.format.in_words(), account.in_words(), stream.editor.in_words(),
        account.pairs, held_out, walk.shelving.shelved, verdict, sentence, findings, lengths, why_not))
    return None


def _write(path: Path, found: Examination) -> None:
    draft = path.with_name(f".{path.name}")
    draft.write_text(found.to_json(), encoding="utf-8")
    os.replace(draft, path)


class Walk:
    """The pairs as they pass: shelved, sampled, their questions remembered by hash. Raises Stopped when asked to end."""

    def __init__(self, desk: Desk, stream: Stream, seed: int):
        self.desk, self.stream, self.sample = desk, stream, []
        self.shelving = Shelving(desk.folder, int(min(SHELF_BYTES, DISK_SHARE * shutil.disk_usage(desk.folder).free)))
        self._chance, self._questions, self._numbers = random.Random(seed), bytearray(), []

    def __iter__(self) -> Iterator[Seen]:
        for count, seen in enumerate(self.stream, start=1):
            self.shelving.add(seen.number, seen.pair.row())
            self._questions += checks.question_key(seen.pair)
            self._numbers.append(seen.number)
            self._draw(count, seen.pair)
            if count % 200 == 0:
                self.desk.progress(count, 0, "pairs")
                if self.desk.asked_to_stop:
                    raise Stopped
            yield seen

    def _draw(self, count: int, pair: Pair) -> None:
        """Every pair so far is in the sample with the same chance (Vitter's algorithm R)."""
        if len(self.sample) < MEASURED:
            self.sample.append(pair)
        elif (place := self._chance.randrange(count)) < MEASURED:
            self.sample[place] = pair

    def leaks(self, drawn: list[int], held_out: int) -> tuple[list[Finding], int]:
        """Held-out pairs whose question is among those to be trained on; and how many are held out, without them if edits say so."""
        if not held_out:
            return [], 0
        keys = np.frombuffer(bytes(self._questions), dtype=np.uint64)[drawn]
        train, kept_away = keys[: len(drawn) - held_out], keys[len(drawn) - held_out :]
        places = np.flatnonzero(np.isin(kept_away, train)) + len(drawn) - held_out
        rows = [self._numbers[drawn[place]] for place in places.tolist()]
        if self.stream.editor.drops_leaks(len(rows)):
            return [], held_out - len(rows)
        check = checks.Leaks()
        check.count, check.rows = len(rows), rows[:NAMED]
        finding = check.finding(held_out)
        return [finding] if finding else [], held_out


# --- tokens -----------------------------------------------------------------------------------------------------------


def measured(settings: Settings, sample: list[Pair], desk: Desk) -> tuple[Lengths | None, str, list[Finding]]:
    """How long the sampled pairs are in the model's tokens, or why that cannot be said; and what follows from it."""
    from studio.engine import model, tokens  # slow to import, and the pairs have been read meanwhile

    try:
        tokenizer = model.load_tokenizer(settings.model, desk.token)
    except Exception as error:  # whatever a Hub or a folder raises: the pairs are examined without it
        return None, f"The model's tokens could not be counted. {explain(error, settings.model.name)}", []
    try:
        found = list(tokens.encoded(sample, tokenizer))
    except DataError as error:
        return None, "", [Finding("template", "bad", 0, str(error), ())]
    most = settings.training.max_length
    lengths = np.array([(pair.prompt, len(pair.chosen), len(pair.rejected)) for pair in found]).reshape(-1, 3)
    prompt, chosen, rejected = lengths.T
    lost = (np.maximum(1, prompt) >= most) | np.array([_same_after(pair, most) for pair in found])
    parts = {"prompt": prompt, "chosen": chosen - prompt, "rejected": rejected - prompt}
    edges = _edges(max(int(values.max()) for values in parts.values()))
    spreads = {name: _spread(values, edges) for name, values in parts.items()}
    shares = (float((chosen > most).mean()), float((rejected > most).mean()), float(lost.mean()))
    return Lengths(len(found), most, edges, spreads, *shares), "", []


def _same_after(pair, most: int) -> bool:
    """Whether the cut leaves two answers that are the same."""
    return bool(np.array_equal(pair.chosen[:most], pair.rejected[:most]))


def _edges(longest: int) -> list[int]:
    """The upper ends of the bars, the last one not below the longest."""
    width = max(1, -(-longest // BARS))
    return [width * (bar + 1) for bar in range(BARS)]


def _spread(values: np.ndarray, edges: list[int]) -> Spread:
    counts = np.bincount(np.searchsorted(edges, values), minlength=BARS)[:BARS]
    return Spread(int(np.median(values)), int(np.percentile(values, 95)), int(values.max()), counts.tolist())


if __name__ == "__main__":
    sys.exit(work(examine))
