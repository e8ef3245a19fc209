"""The examination of a dataset: python -m studio.engine.examine FOLDER.

Reads request.yaml, walks through the pairs once with bounded memory, leaves the pairs for the page to look at and,
last and whole, examination.json.
"""

import json
import random
import shutil
import sys
from array import array
from collections.abc import Iterator

import numpy as np

from studio import events, whole
from studio.engine import bounds, data, drawing, tokenizers_only
from studio.engine.data import Stream
from studio.engine.stopping import StopRequested
from studio.engine.worker import Desk, work
from studio.errors import DataError, EncodingDoubt
from studio.examination import ENCODINGS, FILE, Examination
from studio.preferences import checks, doctor
from studio.preferences.findings import NAMED, Finding, Seen
from studio.preferences.pairs import Account
from studio.settings import Settings
from studio.shelf import Shelving

MEASURED = 2000
"""Pairs whose tokens are counted: a share of 5 % is then known to within one."""
SHELF_BYTES = 4 * 1024**3
DISK_SHARE = 0.25
"""Of the free disk, what the examined pairs may take at most."""


def job(desk: Desk) -> events.Event | None:
    """The examination, within bounds: until its end it has written nothing that anybody reads."""
    with bounds.bounded("Examining these pairs"):
        return examine(desk)


def examine(desk: Desk) -> events.Event | None:
    """The whole job. Returns Stopped if it was asked to end early; nothing is left then."""
    settings = Settings.from_file(desk.folder / "request.yaml")
    desk.enter("reading")
    try:
        stream = data.Stream(settings.data, desk.token)
    except EncodingDoubt as doubt:  # the page offers what it could be
        whole.write(desk.folder / ENCODINGS, json.dumps({"path": str(doubt.path), "readings": doubt.readings}))
        raise
    walk = Walk(desk, stream, settings.data.seed)
    try:
        findings = doctor.examine(walk)
    except StopRequested:
        return events.Stopped(step=0)
    finally:
        walk.shelving.close()
    account = stream.account
    if not account.pairs:
        raise DataError(f"{account.in_words()} Check the columns, or choose another dataset.")
    drawn, held_out = drawing.drawn(walk.keys, walk.held_out, settings.data)
    learned = sum(stream.copies(walk.numbers[place]) for place in drawn[: len(drawn) - held_out])
    leaks, held_out = walk.leaks(drawn, held_out)
    desk.enter("counting tokens")
    from studio.engine import forecast  # transformers comes with it, which only this program imports without torch

    told = forecast.forecast(settings, walk.sample, account.pairs, desk.token)
    findings = sorted(unusable(account, settings) + leaks + findings + told.findings + other_sheets(stream),
                      key=lambda finding: doctor.GRAVITY.index(finding.weight))
    verdict, sentence = doctor.verdict(findings, len(drawn), account.left_out.total())
    whole.write(desk.folder / FILE, Examination(
        stream.name, stream.in_words(), account.in_words(), stream.editor.in_words(), account.pairs, learned, held_out,
        walk.shelving.shelved, verdict, sentence, findings, told.lengths, told.why_not, stream.facets.found(), made_of(stream)).to_json())
    return None


def made_of(stream: Stream) -> str:
    """What was examined, for edits to be made for it; nothing where that is not known of every source."""
    found = stream.fingerprints()
    return "\n".join(map(str, found)) if all(found) else ""


def unusable(account: Account, settings: Settings) -> list[Finding]:
    """Rows that are no pair, unless they may be left out: a run would stop at them."""
    count = account.left_out.total()
    if not count or settings.data.leave_out:
        return []
    return [Finding("unusable", "bad", count, f"{count:,} rows are no pairs, and a run stops at them: {account.reasons()}.", (),
                    button=f"Leave out {count:,} unusable row{'s' * (count > 1)}", setting="data.leave_out", value=True)]


def other_sheets(stream: data.Stream) -> list[Finding]:
    """Sheets of the first source's workbook that hold pairs as well."""
    source = stream.opened[0].source
    return [Finding("sheet", "hint", 0, f"{source.name} has another sheet with pairs, “{title}”, which is not read.", (),
                    button=f"Read the sheet “{title}” instead", setting="data.subset", value=title) for title in source.sheets]


class Walk:
    """The pairs as they pass: shelved, sampled, their questions remembered by hash. Raises StopRequested when asked to end.

    `numbers` are their rows', `keys` those by which they are drawn, `held_out` says of each whether the edits hold it out.
    """

    def __init__(self, desk: Desk, stream: Stream, seed: int):
        self.desk, self.stream, self.sample, self.held_out = desk, stream, [], bytearray()
        self.shelving = Shelving(desk.folder, int(min(SHELF_BYTES, DISK_SHARE * shutil.disk_usage(desk.folder).free)))
        self._seed, self._chance, self._questions = seed, random.Random(seed), bytearray()
        self.numbers, self.keys = array("Q"), array("Q")

    def __iter__(self) -> Iterator[Seen]:
        for count, seen in enumerate(self.stream, start=1):
            self.shelving.add(seen.number, seen.pair.row())
            self._questions += checks.question_key(seen.pair)
            self.numbers.append(seen.number)
            self.keys.append(drawing.key(seen.pair, self._seed))
            self.held_out.append(seen.held_out)
            self._draw(count, seen)
            if count % 200 == 0:
                self.desk.progress(count, 0, "pairs")
            yield seen

    def _draw(self, count: int, seen: Seen) -> None:
        """Every pair so far is in the sample with the same chance (Vitter's algorithm R)."""
        if len(self.sample) < MEASURED:
            self.sample.append(seen)
        elif (place := self._chance.randrange(count)) < MEASURED:
            self.sample[place] = seen

    def leaks(self, drawn: list[int], held_out: int) -> tuple[list[Finding], int]:
        """Held-out pairs whose question is among those to be trained on; and how many are held out, without them if edits say so."""
        if not held_out:
            return [], 0
        keys = np.frombuffer(bytes(self._questions), dtype=np.uint64)[drawn]
        train, kept_away = keys[: len(drawn) - held_out], keys[len(drawn) - held_out :]
        places = np.flatnonzero(np.isin(kept_away, train)) + len(drawn) - held_out
        rows = [self.numbers[drawn[place]] for place in places.tolist()]
        if self.stream.editor.drops_leaks(len(rows)):
            return [], held_out - len(rows)
        check = checks.Leaks()
        check.count, check.rows = len(rows), rows[:NAMED]
        finding = check.finding(held_out)
        return [finding] if finding else [], held_out


if __name__ == "__main__":
    tokenizers_only.import_transformers()
    sys.exit(work(job))
