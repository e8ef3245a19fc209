"""The export job: python -m studio.engine.export EXAMINED/export. The pairs as the edits leave them, as a file or a Hub dataset.

Pairs pass one by one into drafts on disk; a result takes its place when it is whole. Weights above 1 and the share that a
run holds out by itself are the run's: here every pair is there once, and only what edits hold out is a split of its own.
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import compress, repeat
from pathlib import Path

import numpy as np
from huggingface_hub import CommitOperationAdd, HfApi

from studio import events, unfinished
from studio.engine import columns, dataset_card, hub
from studio.engine.data import Stream
from studio.engine.stopping import StopRequested
from studio.engine.worker import Desk, about, work
from studio.errors import DataError
from studio.export import ExportRequest
from studio.preferences.checks import question_key
from studio.preferences.findings import Seen
from studio.settings import Settings
from studio.share import FILE

TRAIN, TEST = "train", "test"
RESULTS = {"jsonl": "cleaned.jsonl", "parquet": "cleaned.parquet"}
ON_HUB = "data/{split}-00000-of-00001.parquet"
LOOK = 200
"""Pairs between two looks at whether somebody pressed Stop."""


def export(desk: Desk) -> events.Event | None:
    """The whole job. Returns Stopped if it was asked to end early: then there is no file here and no commit on the Hub."""
    settings, asked = Settings.from_file(desk.folder.parent / FILE), ExportRequest.from_file(desk.folder / FILE)
    for name in RESULTS.values():
        (desk.folder / name).unlink(missing_ok=True)
    try:
        with _drafts(desk.folder) as drafts:
            return (_push if asked.to == "hub" else _save)(desk, settings, asked, drafts)
    except StopRequested:
        return events.Stopped(step=0)


@contextmanager
def _drafts(folder: Path) -> Iterator[Path]:
    """A hidden folder to write into, gone at the end."""
    drafts = unfinished.named(folder, "files")
    drafts.mkdir()
    try:
        yield drafts
    finally:
        unfinished.remove(drafts)


# --- the pairs --------------------------------------------------------------------------------------------------------


class Cleaned:
    """The pairs of one walk as lines of JSON on disk, those to learn from apart from those that edits hold out.

    `counts` are pairs by split. Walking and reading raise StopRequested when the job is asked to end.
    """

    def __init__(self, desk: Desk, stream: Stream, folder: Path):
        self.desk, self.stream = desk, stream
        self.counts = {TRAIN: 0, TEST: 0}
        self._drafts = {split: folder / f"{split}.jsonl" for split in self.counts}
        self._questions = {split: bytearray() for split in self.counts}
        self._kept: Iterable[bool] = repeat(True)

    def walk(self, found: Iterable[Seen]) -> None:
        """Keep every pair. Raises DataError if there is none."""
        with open(self._drafts[TRAIN], "w", encoding="utf-8") as train, open(self._drafts[TEST], "w", encoding="utf-8") as test:
            for seen in self._watched(found, 0):
                split, draft = (TEST, test) if seen.held_out else (TRAIN, train)
                draft.write(_line(seen.pair.row()))
                self.counts[split] += 1
                if self.stream.editor.holds_out:
                    self._questions[split] += question_key(seen.pair)
        self._leave_out_leaks()
        if not self.total:
            raise DataError(f"{self.stream.account.in_words()} Change the edits or the columns, then export again.")

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def splits(self) -> list[str]:
        """The splits that have pairs."""
        return [split for split, count in self.counts.items() if count]

    def in_words(self) -> str:
        """How many pairs there are."""
        held_out = f", {self.counts[TEST]:,} of them held out" if self.counts[TEST] else ""
        return f"{self.total:,} pairs{held_out}."

    def lines(self, split: str) -> Iterator[str]:
        """The pairs of one split, a line of JSON each."""
        with open(self._drafts[split], encoding="utf-8") as lines:
            kept = compress(lines, self._kept) if split == TEST else lines
            yield from self._watched(kept, self.counts[split])

    def all_lines(self) -> Iterator[str]:
        """All pairs, a line of JSON each; with a column "split" if any are held out."""
        if not self.counts[TEST]:
            return self.lines(TRAIN)
        return (_line(json.loads(line) | {"split": split}) for split in self.splits for line in self.lines(split))

    def _leave_out_leaks(self) -> None:
        """Held-out pairs whose question is learned from are left out if an edit says so; it is known only after the walk."""
        train, test = (np.frombuffer(bytes(self._questions[split]), np.uint64) for split in (TRAIN, TEST))
        leaks = np.isin(test, train)
        if leaks.any() and self.stream.editor.drops_leaks(int(leaks.sum())):
            self._kept = (~leaks).tolist()
            self.counts[TEST] -= int(leaks.sum())

    def _watched(self, found: Iterable, total: int) -> Iterator:
        for count, one in enumerate(found, start=1):
            if count % LOOK == 0 or count == total:
                self.desk.progress(count, total, "pairs")
            yield one


def _line(row: dict) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


# --- where they go ----------------------------------------------------------------------------------------------------


def _save(desk: Desk, settings: Settings, asked: ExportRequest, drafts: Path) -> None:
    """One file in the job's folder."""
    draft, path = drafts / RESULTS[asked.to], desk.folder / RESULTS[asked.to]
    desk.enter("reading")
    stream = Stream(settings.data, desk.token)
    cleaned = Cleaned(desk, stream, drafts)
    turns = columns.Turns()
    cleaned.walk(stream if asked.to == "jsonl" else turns.seen_in(stream))
    desk.enter("writing")
    if asked.to == "jsonl":
        with open(draft, "w", encoding="utf-8") as file:
            file.writelines(cleaned.all_lines())
    else:
        columns.write(draft, cleaned.all_lines(), turns, with_split=TEST in cleaned.splits)
    with desk.stopping.undisturbed():
        os.replace(draft, path)
        desk.say(events.Noted(cleaned.in_words()))
        desk.say(events.Saved(step=0, path=path.name))


def _push(desk: Desk, settings: Settings, asked: ExportRequest, drafts: Path) -> events.Event | None:
    """A dataset on the Hub, in one commit. What the Hub would refuse is refused before a long walk."""
    desk.enter("checking")
    api = HfApi(token=hub.token(desk))
    repo = hub.full_name(api, asked.repo)
    with about(repo):
        found = hub.existing(api, repo, "dataset")
        hub.refuse_to_disturb(found, asked)
    desk.enter("reading")
    stream, turns = Stream(settings.data, desk.token), columns.Turns()
    cleaned = Cleaned(desk, stream, drafts)
    cleaned.walk(turns.seen_in(stream))
    desk.enter("writing")
    additions = list(_additions(cleaned, turns, repo, drafts))
    desk.enter("uploading")
    with about(repo):
        api.create_repo(repo, repo_type="dataset", private=asked.private, exist_ok=True)
        if not hub.send_ahead(desk, api, repo, "dataset", additions):
            return events.Stopped(step=0)
        # What an earlier export left under data/ would be taken for a part of this one.
        with desk.stopping.undisturbed():  # a commit that was begun is one: nobody can tell otherwise whether it was made
            made = api.create_commit(repo, additions + hub.deletions(found, additions, ["data/*.parquet"]), repo_type="dataset",
                                     commit_message=f"Upload {cleaned.total:,} preference pairs with ORPO Studio")
            desk.say(events.Noted(cleaned.in_words()))
            desk.say(events.Pushed(repo, made.commit_url))
    return None


def _additions(cleaned: Cleaned, turns: columns.Turns, repo: str, drafts: Path) -> Iterator[CommitOperationAdd]:
    """The card, and a Parquet file for each split."""
    files = {split: ON_HUB.format(split=split) for split in cleaned.splits}
    yield CommitOperationAdd("README.md", dataset_card.render(repo, cleaned.stream, cleaned.in_words(), cleaned.counts, files).encode())
    for split, name in files.items():
        columns.write(drafts / f"{split}.parquet", cleaned.lines(split), turns)
        yield CommitOperationAdd(name, drafts / f"{split}.parquet")


if __name__ == "__main__":
    sys.exit(work(export))
