"""Openings: the same few words with which many better answers begin, counted in bounded memory."""

import re
from math import sqrt

from studio.preferences.checks import CLEAR, ENOUGH
from studio.preferences.findings import NAMED, Finding, Seen, share
from studio.preferences.told import Told

LEAST, MOST = 2, 5
"""Words of an opening. One word alone is one only where a sign follows it, as in "Sure!"."""
HEAD = 60
"""Characters of an answer that are looked at."""
MANY = 0.15
"""Share of the better answers from which on an opening is worth a word."""
MORE = 1.5
"""How many times as often as the worse answers the better ones begin so, at least."""
SAME = 0.8
"""Share of the answers with an opening that go on alike, from which on what follows belongs to it."""
EXAMPLES = 5000
"""Answers whose beginnings are kept, to name rows."""
WINDOW = 10_000
"""Answers after which every count gives one away, so that what is rare is not kept."""

WORD = re.compile(r"[\w'’]+")
EXCLAIMED = re.compile(r"[^\w'’]*+[\w'’]++ ?[!,:！，、]")


def openings(text: str) -> list[str]:
    """All openings of an answer, the shortest first: its first words in lower case, without what stands between them."""
    head = text[:HEAD]
    words = WORD.findall(head.lower())[:MOST]
    alone = words[:1] if EXCLAIMED.match(head) else []
    return alone + [" ".join(words[:count]) for count in range(LEAST, len(words) + 1)]


class Frequent:
    """Counts of what comes often; what is rare is forgotten in time (lossy counting; Manku and Motwani 2002).

    A count falls short by at most one for every WINDOW answers.
    """

    def __init__(self):
        self.counts: dict[str, int] = {}
        self._answers = 0

    def add(self, found: list[str]) -> None:
        """Counts the openings of one more answer."""
        for opening in found:
            self.counts[opening] = self.counts.get(opening, 0) + 1
        self._answers += 1
        if self._answers % WINDOW == 0:
            self.counts = {opening: count - 1 for opening, count in self.counts.items() if count > 1}


class Openings:
    """Whether many better answers begin with the same words, and clearly more of them than of the worse."""

    name = "openings"

    def __init__(self):
        self.better, self.worse = Frequent(), Frequent()
        self._heads: list[tuple[int, str]] = []

    def see(self, seen: Seen) -> bool:
        told = Told.of(seen)
        self.better.add(openings(told.better.said))
        self.worse.add(openings(told.worse.said))
        if len(self._heads) < EXAMPLES:
            self._heads.append((seen.number, told.better.said[:HEAD]))
        return False

    def finding(self, total: int) -> Finding | None:
        if total < ENOUGH or not (opening := self._most_frequent(total)):
            return None
        examples = [(number, head) for number, head in self._heads if opening in openings(head)]
        written = _as_written(opening, examples[0][1]) if examples else opening
        count, worse = self.better.counts[opening], self.worse.counts.get(opening, 0)
        words = (f"In {share(count, total)} the better answer begins with “{written}”, in {worse:,} the worse one does. "
                 "The model will learn to begin like this, whatever it is asked.")
        return Finding(self.name, "warn", count, words, tuple(number for number, _ in examples[:NAMED]))

    def _most_frequent(self, total: int) -> str:
        """The opening that most better answers have, as far as nearly all of these agree; empty if there is none."""
        counts = self.better.counts
        learned = [opening for opening, count in counts.items() if count > MANY * total and self._is_preferred(opening)]
        if not learned:
            return ""
        most = max(learned, key=counts.__getitem__)
        return max((opening for opening in learned if f"{opening} ".startswith(f"{most} ") and counts[opening] >= SAME * counts[most]),
                   key=len)

    def _is_preferred(self, opening: str) -> bool:
        better, worse = self.better.counts[opening], self.worse.counts.get(opening, 0)
        return better >= MORE * worse and (better - worse) / sqrt(better + worse) > CLEAR


def _as_written(opening: str, head: str) -> str:
    """The opening with its capitals and signs, as the beginning of an answer has it."""
    *_, last = list(WORD.finditer(head))[: len(opening.split())]
    return head[: last.end()].strip()
