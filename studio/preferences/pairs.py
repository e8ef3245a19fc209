"""What a model learns from: pairs of a better and a worse answer, and an account of the rows that are none."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, Any]
"""A turn: role and content, and what a turn with tools has besides."""

SINGULAR = {"have": "has", "are": "is", "do": "does"}
NAMED = 20
"""Rows that are named by number for each reason; the others are counted."""


def in_full(turn: Message) -> str:
    """All that a turn says: what it thinks beside its text, the text, and the tools that it calls."""
    text = turn["content"] or ""
    if len(turn) == 2:
        return text
    thought = [turn[name] for name in ("reasoning_content", "thinking") if isinstance(turn.get(name), str)]
    calls = turn.get("tool_calls") or () if isinstance(turn.get("tool_calls"), list | tuple) else ()
    return "\n".join(filter(None, (*thought, text, *map(_called, calls))))


def _called(call: Any) -> str:
    function = call.get("function", call) if isinstance(call, Mapping) else {}
    if not isinstance(function, Mapping):
        return str(function)
    given = function.get("arguments", function.get("parameters", ""))
    return f"→ {function.get('name', '')} {given if isinstance(given, str) else json.dumps(given, ensure_ascii=False, default=str)}"


@dataclass(frozen=True)
class Pair:
    """One preference example. The prompt ends with a user turn; each answer is one or more turns.

    `tools` describe what can be called, as chat templates take it (JSON schemas of functions).
    """

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    tools: list[dict[str, Any]] = field(default_factory=list)

    def row(self) -> dict[str, list[Message]]:
        """The pair as a row of an explicit conversational dataset, with the tools where it has any."""
        row = {"prompt": self.prompt, "chosen": self.chosen, "rejected": self.rejected}
        return row | {"tools": self.tools} if self.tools else row

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> "Pair":
        """The pair that was written as such a row."""
        return cls(row["prompt"], row["chosen"], row["rejected"], row.get("tools") or [])


@dataclass
class Account:
    """Where every row of a dataset went: a pair, left out for a reason, edited away, not drawn, or a pair's second half.

    `rows` are all that were read, `further` the pairs that rows with several worse answers give beside their first; the
    other counts add up to both. `named` are the first rows left out, by reason.
    """

    rows: int = 0
    further: int = 0
    pairs: int = 0
    halves: int = 0
    edited: int = 0
    undrawn: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    named: dict[str, list[int]] = field(default_factory=dict)

    def leave_out(self, number: int, reason: str) -> None:
        """One row is no pair, for a reason that reads after a count ("have an empty answer")."""
        self.left_out[reason] += 1
        if len(named := self.named.setdefault(reason, [])) < NAMED:
            named.append(number)

    def in_words(self) -> str:
        """How many pairs there are and what became of the other rows, in a sentence or two."""
        every = self.rows + self.further
        if self.further:
            told = f"{self.rows:,} rows hold {every:,} pairs, as each worse answer of a row makes a pair of its own; "
            told += "all are usable." if self.pairs == every else f"{self.pairs:,} are usable."
        elif self.pairs == self.rows:
            return f"All {self.rows:,} rows are usable pairs."
        else:
            told = f"{self.pairs:,} of {self.rows:,} rows are usable pairs."
        if self.halves:
            told += f" {self.halves:,} are the second half of a pair."
        if self.edited:
            told += f" {self.edited:,} were taken out by edits."
        if self.undrawn:
            told += f" {self.undrawn:,} were not drawn, as the weights ask."
        return told + (f" Left out: {self.reasons()}." if self.left_out else "")

    def reasons(self) -> str:
        """Counts with their reasons and the first rows concerned."""
        return "; ".join(f"{count:,} {_agreeing(reason, count)}{_rows(self.named.get(reason, []), count)}"
                         for reason, count in self.left_out.most_common())


def _agreeing(reason: str, count: int) -> str:
    """The reason, which begins with its verb, for one row or for several."""
    verb, space, rest = reason.partition(" ")
    return reason if count > 1 else SINGULAR.get(verb, f"{verb}s") + space + rest


def _rows(numbers: list[int], count: int) -> str:
    if not numbers:
        return ""
    shown = ", ".join(f"{number:,}" for number in numbers[:3])
    return f" (row{'s' * (count > 1)} {shown}{' …' * (count > 3)})"


def common_system(prompts: Iterable[Sequence[Message]]) -> str:
    """The system turn, to the byte, with which all these prompts begin; empty where they do not all have the same."""
    found: set[str] = set()
    for prompt in prompts:
        opens = bool(prompt) and prompt[0].get("role") == "system"
        found.add(str(prompt[0].get("content") or "") if opens else "")
        if len(found) > 1:
            return ""
    return found.pop() if found else ""
