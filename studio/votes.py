"""Blind votes: which of two answers somebody preferred who could not know whose it was. A file in the run's folder.

A vote is about the adapter that the run had then: after a run went on, the votes before no longer count.
"""

import fcntl
import json
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from studio import chance, events
from studio.events import Event
from studio.runs import Run
from studio.summary import percent, span

FILE = "votes.jsonl"
Preferred = Literal["base", "tuned", "neither"]


@dataclass(frozen=True)
class Tally:
    """How often either was preferred, or no difference seen."""

    base: int = 0
    tuned: int = 0
    neither: int = 0

    @property
    def votes(self) -> int:
        return self.base + self.tuned + self.neither

    @cached_property
    def by_chance(self) -> float:
        """The chance of a split so uneven if base and tuned were equally good."""
        return chance.of_split(self.tuned, self.base)

    def in_words(self) -> str:
        """The votes, tuned's share of those that decided with its 95 % interval, and whether chance alone could do it."""
        told = (f"{self.votes:,} blind vote{'s' * (self.votes != 1)}: {self.tuned:,} for the tuned answer, {self.base:,} for the base's"
                + (f", {self.neither:,} for neither." if self.neither else "."))
        decided = self.base + self.tuned
        if not decided:
            return told
        ends = chance.interval(self.tuned, decided)
        is_clear = self.by_chance < chance.ENOUGH
        return (f"{told} Tuned won {percent(self.tuned / decided)} of those decided (95 % interval {span(ends)}), "
                + ("more than chance would do." if is_clear else "which chance alone could do; more votes will tell."))


def add(run: Run, said: list[Event], preferred: Preferred, question: str) -> None:
    """Keep one vote on the adapter that the run has now; `said` is its log."""
    vote = {"preferred": preferred, "step": _step(said), "question": question, "voted": time.strftime("%Y-%m-%d %H:%M:%S")}
    with open(run.folder / FILE, "a", encoding="utf-8") as lines:
        fcntl.flock(lines, fcntl.LOCK_EX)  # two browsers may vote at once
        lines.write(json.dumps(vote, ensure_ascii=True) + "\n")


def tally(run: Run, said: list[Event]) -> Tally:
    """The votes on the adapter that the run has now; `said` is its log. A line that nobody wrote whole is passed over."""
    try:
        lines = (run.folder / FILE).read_bytes().splitlines()
    except OSError:
        return Tally()
    step, counted = _step(said), Counter()
    for line in lines:
        with suppress(ValueError, KeyError, TypeError):
            vote = json.loads(line)
            counted[vote["preferred"]] += vote["step"] == step
    return Tally(*(counted[who] for who in ("base", "tuned", "neither")))


def _step(said: list[Event]) -> int | None:
    """The step after which the adapter was saved."""
    saved = events.last(said, events.Saved)
    return saved.step if saved else None
