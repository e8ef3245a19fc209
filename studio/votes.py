"""Blind votes: which of two answers somebody preferred who could not know whose it was. A file in the run's folder.

A vote is about two candidates as they were then: after a run went on, the votes on its earlier adapter no longer count.
"""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from studio import chance, json_lines, pasted
from studio.candidates import Pair
from studio.runs import Run
from studio.summary import percent, span

FILE = "votes.jsonl"
NEITHER = "neither"
Preferred = Literal[0, 1, "neither"]
"""The first of a pair, the second, or neither."""


@dataclass(frozen=True)
class Tally:
    """How often either of a pair was preferred, or no difference seen."""

    first: int = 0
    second: int = 0
    neither: int = 0

    @property
    def votes(self) -> int:
        return self.first + self.second + self.neither

    @cached_property
    def by_chance(self) -> float:
        """The chance of a split so uneven if both were equally good."""
        return chance.of_split(self.second, self.first)

    def in_words(self, names: tuple[str, str] = ("Base", "Tuned")) -> str:
        """The votes, the second's share of those that decided with its 95 % interval, and whether chance alone could do it."""
        first, second = names
        told = (f"{self.votes:,} blind vote{'s' * (self.votes != 1)}: {second} was preferred {times(self.second)}, "
                f"{first} {times(self.first)}" + (f", and no difference seen {times(self.neither)}." if self.neither else "."))
        decided = self.first + self.second
        if not decided:
            return told
        ends = chance.interval(self.second, decided)
        is_clear = self.by_chance < chance.ENOUGH
        return (f"{told} {second} won {percent(self.second / decided)} of those decided (95 % interval {span(ends)}), "
                + ("more than chance would do." if is_clear and self.second > self.first else
                   "fewer than chance would give." if is_clear else "which chance alone could do; more votes will tell."))


def times(count: int) -> str:
    """How often, in words."""
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count:,} times")


def add(run: Run, pair: Pair, preferred: Preferred, question: str, identity: str = "") -> None:
    """Keep one vote on a pair, with the run in view; the candidates have the steps that they have now.

    `identity` is that of the judgement, by which it can be undone.
    """
    pasted.refuse(question)  # votes are told in a public card
    names = [str(candidate) for candidate in pair]
    vote = {"between": names, "preferred": NEITHER if preferred == NEITHER else names[preferred], "question": question,
            "voted": time.strftime("%Y-%m-%d %H:%M:%S")}
    json_lines.append(run.folder / FILE, vote | ({"id": identity} if identity else {}))


def files(run: Run, pair: Pair) -> list[Path]:
    """Where votes on a pair may be: with any of its runs, whichever was in view."""
    folders = dict.fromkeys([run.folder, *(run.folder.parent / candidate.run for candidate in pair if candidate.run)])
    return [folder / FILE for folder in folders]


def between(run: Run, pair: Pair) -> Iterator[dict[str, Any]]:
    """The votes on a pair, the oldest of each file first. A line that nobody wrote whole is passed over."""
    names = sorted(str(candidate) for candidate in pair)
    for file in files(run, pair):
        for vote in json_lines.records(file):
            with suppress(KeyError, TypeError):
                if sorted(vote["between"]) == names and vote["preferred"] in (*names, NEITHER):
                    yield vote


def tally(run: Run, pair: Pair) -> Tally:
    """The votes on a pair so far."""
    counted = Counter(vote["preferred"] for vote in between(run, pair))
    first, second = (str(candidate) for candidate in pair)
    return Tally(counted[first], counted[second], counted[NEITHER])
