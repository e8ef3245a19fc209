"""The doctor: everything that is looked for in a set of pairs, in one pass, and whether the set is ready.

It looks at texts alone; tokens, models and files are others' business. It keeps hashes and counts, never the texts.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from math import sqrt
from statistics import median
from typing import Literal

from studio.preferences import checks, marks
from studio.preferences.checks import CLEAR, ENOUGH, REFUSAL, Counting
from studio.preferences.findings import Check, Finding, Seen, share
from studio.preferences.languages import LanguageMix, Languages
from studio.preferences.near import NearDuplicates
from studio.preferences.openings import Openings
from studio.preferences.told import Told

Verdict = Literal["ready", "ready with losses", "not ready"]

ONE_SIDED = 0.7
"""Share of pairs with the longer answer on one side from which on length itself is learned."""
SIGNS = 0.02
"""Share of pairs that must show a sign at all; a handful of odd ones says nothing of a large set."""


class Length:
    """Whether the better answer is mostly the longer one, or mostly the shorter."""

    name = "length"

    def __init__(self):
        self.longer = self.shorter = 0
        self.ratios: list[float] = []

    def see(self, seen: Seen) -> bool:
        told = Told.of(seen)
        better, worse = len(told.better.said), len(told.worse.said)
        self.longer += better > worse
        self.shorter += better < worse
        if len(self.ratios) < 100_000:
            self.ratios.append(better / max(1, worse))
        return False

    def finding(self, total: int) -> Finding | None:
        if total < ENOUGH or max(self.longer, self.shorter) < ONE_SIDED * total:
            return None
        more = self.longer > self.shorter
        count, word, learned = (self.longer, "longer", "at length") if more else (self.shorter, "shorter", "briefly")
        ratio = median(self.ratios)
        words = (f"In {share(count, total)} the better answer is the {word} one, typically {ratio:.1f} times as long as the worse. "
                 f"The model will learn to answer {learned}, whatever else it learns.")
        return Finding(f"{word}-answers-win", "warn", count, words, ())


class Swapped:
    """Signs that better and worse are exchanged: refusals and stubs that are the better answer more often than by chance."""

    name = "swapped"

    def __init__(self):
        self.better = self.worse = 0
        self.rows: list[int] = []

    def see(self, seen: Seen) -> bool:
        told = Told.of(seen)
        better, worse = _is_poor(told.better.said), _is_poor(told.worse.said)
        if better == worse:
            return False
        self.better += better
        self.worse += worse
        if better and len(self.rows) < 200:
            self.rows.append(seen.number)
        return False

    def finding(self, total: int) -> Finding | None:
        differ = self.better + self.worse
        if differ < max(10, SIGNS * total) or (self.better - self.worse) / sqrt(differ) <= CLEAR:
            return None
        words = (f"In {self.better:,} of the {differ:,} pairs where one answer is a refusal or a stub, it is the better one. "
                 "Better and worse may be exchanged in this set; look at a few before you swap them.")
        return Finding(self.name, "bad", self.better, words, tuple(self.rows), "swap all", f"Swap better and worse in all {total:,} pairs")


IGNORANCE = re.compile(r"\W*(i (do not|don['’]t) know|i have no idea|no idea)\b", re.IGNORECASE)


def _is_poor(text: str) -> bool:
    """A refusal, an admission of knowing nothing, or hardly an answer."""
    return bool(REFUSAL.match(text) or IGNORANCE.match(text)) or len(text.strip()) < 3


class Extreme(Counting):
    """Texts far longer than the others. What is typical is known only after the first few, which are never concerned."""

    name, weight, what = "extreme", "hint", "far too long"
    TIMES, AT_LEAST = 20, 20_000

    def __init__(self):
        super().__init__()
        self._total = self._pairs = 0

    def concerns(self, told: Told) -> bool:
        length = sum(len(text.said) for text in (told.question, told.better, told.worse))
        extreme = self._pairs >= ENOUGH and length > max(self.AT_LEAST, self.TIMES * self._total / self._pairs)
        if not extreme:
            self._total, self._pairs = self._total + length, self._pairs + 1
        return extreme

    def words(self, total: int) -> str:
        return (f"{share(self.count, total)} are more than {self.TIMES} times as long as is usual here. They cost the most memory, "
                "and most of their text will be cut off.")


CHECKS: dict[str, Callable[[], Check]] = {check.name: check for check in (
    Swapped, marks.WrittenTurns, marks.NamesForAnswers, checks.Contradictions, checks.Leaks, checks.Duplicates, NearDuplicates,
    Length, Openings, checks.Refusals, LanguageMix,
    checks.CutAnswers, marks.Markup, marks.MissingWords, marks.FewAnswers, marks.UnaskedJson,
    checks.TinyDifferences, checks.RepeatedQuestions, Languages, checks.LookAlikes, checks.Secrets,
    Extreme)}
"""All by name, what matters most first."""

GRAVITY = ("bad", "warn", "hint")


def examine(pairs: Iterable[Seen]) -> list[Finding]:
    """All findings, the gravest first, of one pass over the pairs."""
    running, total = [check() for check in CHECKS.values()], 0
    looks = [check.see for check in running]
    for seen in pairs:
        total += 1
        told = Told.of(seen)  # once for all of them
        for look in looks:
            look(told)
    found = [finding for check in running if (finding := check.finding(total))]
    if 0 < total < ENOUGH:
        few = (f"There are {total:,} pairs. A few hundred teach a manner; with fewer than {ENOUGH} the model learns them by heart "
               "rather than what they have in common.")
        found.append(Finding("few", "hint", total, few, ()))
    return sorted(found, key=lambda finding: GRAVITY.index(finding.weight))


def verdict(findings: Sequence[Finding], usable: int, left_out: int) -> tuple[Verdict, str]:
    """Whether the set is ready, and that in a sentence."""
    bad = [finding for finding in findings if finding.weight == "bad"]
    warnings = [finding for finding in findings if finding.weight == "warn"]
    if usable < 2:
        return "not ready", "There are fewer than two usable pairs, and nothing can be learned from them."
    if bad:
        return "not ready", f"{usable:,} pairs can be read, but something is likely wrong with them. Look at the first finding below."
    if left_out or warnings:
        lost = f"{left_out:,} rows will be left out" if left_out else ""
        look = f"{len(warnings)} finding{'s' * (len(warnings) != 1)} below deserve{'s' * (len(warnings) == 1)} a look" if warnings else ""
        return "ready with losses", f"{usable:,} pairs can be learned from; {' and '.join(filter(None, (lost, look)))}."
    return "ready", f"{usable:,} pairs can be learned from, and nothing that is looked for is wrong with them."
