"""What a model's tokenizer and template will make of the pairs, told from a sample: their lengths, and what a cut takes."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from studio.engine import fidelity, texts, tokens
from studio.engine.asking import Common
from studio.engine.rendering import Refusal, render
from studio.engine.vocabulary import load_tokenizer
from studio.errors import StudioError, explain
from studio.examination import Lengths, Spread
from studio.preferences.edits import Edit
from studio.preferences.findings import NAMED, Finding, Seen, share
from studio.preferences.pairs import Pair
from studio.settings import Settings

BARS = 24
COVERED = 99
"""Of a hundred pairs, how many the length that is proposed is to hold."""
WHOLE = 64
"""Lengths are proposed in multiples of this."""
JOIN = Edit("join")


@dataclass(frozen=True)
class Forecast:
    """The lengths, or why there are none, and what follows for the pairs."""

    lengths: Lengths | None = None
    why_not: str = ""
    findings: list[Finding] = field(default_factory=list)


def forecast(settings: Settings, sample: Sequence[Seen], total: int, token: str | None) -> Forecast:
    """What becomes of `total` pairs, told from those in the sample."""
    try:
        tokenizer = load_tokenizer(settings.model, token)
    except Exception as error:  # whatever a Hub or a folder raises: the pairs are examined without it
        return Forecast(why_not=f"The model's tokens could not be counted. {explain(error, settings.model.name)}")
    findings: list[Finding] = []
    try:
        findings = without_system(sample, total, tokenizer)
        pairs = [JOIN.changed(seen.pair) if findings and JOIN.concerns()(seen) else seen.pair for seen in sample]
        found = [Counted.of(pair, settings.training.max_length)
                 for batch in texts.batches(pairs) for pair in tokens.encoded(batch, tokenizer)]
    except StudioError as error:
        return Forecast(findings=[*findings, Finding("template", "bad", 0, str(error), ())])
    numbers = [seen.number for seen in sample]
    measured = Measured(numbers, found, settings.training.max_length, total)
    findings += lost_by_the_template([pair.lost for pair in found], numbers, total, tokenizer.chat_template)
    findings += _begun_otherwise(found, numbers, total)
    return Forecast(measured.lengths(), "", [*findings, *measured.findings(tokenizer.model_max_length)])


def _begun_otherwise(found: Sequence["Counted"], numbers: Sequence[int], total: int) -> list[Finding]:
    """Whether the template begins an answer, when it asks for one, as the pairs' answers do not begin."""
    common = Common()
    for pair in found:
        common.see(pair.begun, [])
    rows = [number for number, pair in zip(numbers, found, strict=True) if pair.begun]
    words = common.asking().in_words()
    return [Finding("begun", "hint", _scaled(len(rows), len(found), total), words, tuple(sorted(rows)[:NAMED]))] if words else []


class Counted(NamedTuple):
    """A pair's lengths in tokens, whether a cut leaves both answers alike, and what the chat template left out of it, as bits."""

    prompt: int
    chosen: int
    rejected: int
    same: bool
    lost: int
    begun: str

    @classmethod
    def of(cls, pair: tokens.Encoded, most: int) -> "Counted":
        """Of a pair that is cut at `most` tokens."""
        same = np.array_equal(pair.chosen[:most], pair.rejected[:most])
        return cls(pair.prompt, len(pair.chosen), len(pair.rejected), same, pair.lost, pair.begun)


def lost_by_the_template(found: Sequence[int], numbers: Sequence[int], total: int, template: str) -> list[Finding]:
    """What the chat template leaves out of the sampled pairs, as findings."""
    return [Finding(loss.name, loss.weight, _scaled(len(loss.places), len(found), total),
                    f"{_about(len(loss.places), len(found), total)} {loss.words}",
                    tuple(sorted(numbers[place] for place in loss.places)[:NAMED])) for loss in fidelity.told(found, template)]


def without_system(sample: Sequence[Seen], total: int, tokenizer) -> list[Finding]:
    """Whether the template refuses a system turn, or passes over it without a word."""
    concerned = [seen for seen in sample if JOIN.concerns()(seen)]
    if not concerned or _holds_system(concerned[0].pair, tokenizer):
        return []
    words = (f"{_about(len(concerned), len(sample), total)} begin with a system turn, which this model's chat template cannot hold. "
             "Put before the question, its text is learned from all the same.")
    return [Finding("system-turns", "bad", _scaled(len(concerned), len(sample), total), words, _numbers(concerned), str(JOIN),
                    "Put system texts before the question")]


def _holds_system(pair: Pair, tokenizer) -> bool:
    try:
        text = render(tokenizer, pair.prompt)
    except Refusal:
        return False
    return pair.prompt[0]["content"].strip() in text


def _numbers(found: Sequence[Seen]) -> tuple[int, ...]:
    return tuple(sorted(seen.number for seen in found)[:NAMED])


def _scaled(count: int, measured: int, total: int) -> int:
    return round(count * total / max(1, measured))


def _about(count: int, measured: int, total: int) -> str:
    """A count of the sample as one of all pairs, with its share; "about" unless all were looked at."""
    told = share(_scaled(count, measured, total), total)
    return told if measured == total else f"About {told}"


class Measured:
    """The sampled pairs in tokens, and what a cut at `most` tokens makes of them."""

    def __init__(self, numbers: Sequence[int], found: Sequence[Counted], most: int, total: int):
        self.most, self.total, self.numbers = most, total, np.array(numbers)
        self.prompt, self.chosen, self.rejected = np.array([pair[:3] for pair in found]).reshape(-1, 3).T
        lost = np.array([bool(pair.lost & (fidelity.EMPTY | fidelity.ALIKE)) for pair in found], dtype=bool)
        self.by_template = lost  # which the length has no part in
        self.roomless = (np.maximum(1, self.prompt) >= most) & ~lost
        self.same = np.array([pair.same for pair in found], dtype=bool) & ~self.roomless & ~lost

    def lengths(self) -> Lengths:
        """The lengths, as the page draws them."""
        parts = {"prompt": self.prompt, "chosen": self.chosen - self.prompt, "rejected": self.rejected - self.prompt}
        edges = _edges(max(int(values.max()) for values in parts.values()))
        spreads = {name: _spread(values, edges) for name, values in parts.items()}
        lost = ((self.chosen > self.most).mean(), (self.rejected > self.most).mean(), (self.roomless | self.same | self.by_template).mean())
        tokens_a_pair = (np.minimum(self.chosen, self.most) + np.minimum(self.rejected, self.most)).mean()
        return Lengths(len(self.prompt), self.most, float(tokens_a_pair), edges, spreads, *map(float, lost))

    def findings(self, model_max: int) -> list[Finding]:
        """Pairs that lose an answer's end, whose answers are the same once they are cut, and that have no room for one."""
        cut = (np.maximum(self.chosen, self.rejected) > self.most) & ~self.roomless & ~self.same & ~self.by_template
        told = [
            self._finding("cut", cut, "are longer than the maximum length and lose the end of an answer. The model learns to stop early."),
            self._finding("same-after-cut", self.same, "are left out: their answers differ only in what the maximum length cuts off."),
            self._finding("no-room", self.roomless, "are left out: their question fills the maximum length, and no answer has room.")]
        found, enough = [finding for finding in told if finding.count], self._enough(model_max)
        if found and enough > self.most:
            found[0] = replace(found[0], button=f"Raise the maximum length to {enough:,}", setting="training.max_length", value=enough)
        return found

    def _finding(self, name: str, where: np.ndarray, words: str) -> Finding:
        count, measured = int(where.sum()), len(self.numbers)
        return Finding(name, "warn", _scaled(count, measured, self.total), f"{_about(count, measured, self.total)} {words}",
                       tuple(sorted(self.numbers[where].tolist())[:NAMED]))

    def _enough(self, model_max: int) -> int:
        """A length that holds all pairs if that costs little, else nearly all; never more than the model was made for."""
        longest = np.maximum(self.chosen, self.rejected)
        nearly = int(np.percentile(longest, COVERED))
        enough = int(longest.max()) if longest.max() <= 1.5 * nearly else nearly
        return min(-(-enough // WHOLE) * WHOLE, model_max)


def _edges(longest: int) -> list[int]:
    """The upper ends of the bars, the last one not below the longest."""
    width = max(1, -(-longest // BARS))
    return [width * (bar + 1) for bar in range(BARS)]


def _spread(values: np.ndarray, edges: list[int]) -> Spread:
    counts = np.bincount(np.searchsorted(edges, values), minlength=BARS)[:BARS]
    return Spread(int(np.median(values)), int(np.percentile(values, 95)), int(values.max()), counts.tolist())
