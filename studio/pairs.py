"""One row of any known format -> prompt, chosen, rejected as lists of messages.

All formats become explicit conversational pairs; the original is untouched. A row that cannot be a pair is not
dropped in silence: `read` counts each with its reason.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from studio.errors import DataError

Message = dict[str, str]

PROMPT_NAMES = ("prompt", "question", "instruction", "input", "query")
CHOSEN_NAMES = ("chosen", "chosen_response", "better", "preferred", "response_chosen")
REJECTED_NAMES = ("rejected", "rejected_response", "worse", "dispreferred", "response_rejected")
SYSTEM_NAMES = ("system", "system_prompt")
ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "prompter": "user"}


@dataclass(frozen=True)
class Pair:
    """One preference example. The prompt ends with a user turn; each answer is one or more turns."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]

    def row(self) -> dict[str, list[Message]]:
        """The pair as a row of an explicit conversational dataset."""
        return {"prompt": self.prompt, "chosen": self.chosen, "rejected": self.rejected}


@dataclass(frozen=True)
class Columns:
    """Which columns hold what. `prompt` is empty where the answers are whole conversations."""

    prompt: str
    chosen: str
    rejected: str
    system: str = ""

    def in_words(self) -> str:
        """What was recognised, in a sentence."""
        where = f"the question from “{self.prompt}”" if self.prompt else "the question from the conversations themselves"
        system = f", the system turn from “{self.system}”" if self.system else ""
        return f"Takes {where}{system}, the better answer from “{self.chosen}” and the worse from “{self.rejected}”."


@dataclass
class Reading:
    """The pairs of a dataset, and why the other rows are not among them. The counts add up to the rows read."""

    pairs: list[Pair] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def in_words(self) -> str:
        """How many pairs there are and what was left out, in a sentence or two."""
        total = len(self.pairs) + self.left_out.total()
        if not self.left_out:
            return f"All {total:,} rows are usable pairs."
        reasons = "; ".join(f"{count:,} {reason}" for reason, count in self.left_out.most_common())
        return f"{len(self.pairs):,} of {total:,} rows are usable pairs. Left out: {reasons}."


def recognise(names: Iterable[str], prompt: str = "", chosen: str = "", rejected: str = "") -> Columns:
    """The columns to read, by their names or as asked for. Raises DataError naming the columns that are there."""
    names = list(names)
    for asked in filter(None, (prompt, chosen, rejected)):
        if asked not in names:
            raise DataError(f"There is no column “{asked}”; the columns are {_listed(names)}. Name one of these.")
    found = Columns(prompt or _first(PROMPT_NAMES, names), chosen or _first(CHOSEN_NAMES, names),
                    rejected or _first(REJECTED_NAMES, names), _first(SYSTEM_NAMES, names))
    if not found.chosen or not found.rejected:
        missing = " and ".join(name for name, there in (("chosen", found.chosen), ("rejected", found.rejected)) if not there)
        raise DataError(f"No column for {missing} was recognised; the columns are {_listed(names)}. "
                        "Name the columns with the better and the worse answer under Train, Data columns.")
    return found


def read(rows: Iterable[Mapping[str, Any]], columns: Columns) -> Reading:
    """Every row as a pair, or counted with the reason why it is none."""
    reading = Reading()
    for row in rows:
        try:
            reading.pairs.append(pair(row, columns))
        except DataError as reason:
            reading.left_out[str(reason)] += 1
    return reading


def pair(row: Mapping[str, Any], columns: Columns) -> Pair:
    """One row as a pair. Raises DataError with a reason that reads after a count ("3 have an empty answer")."""
    chosen, rejected = _turns(row.get(columns.chosen), "assistant"), _turns(row.get(columns.rejected), "assistant")
    asked = _turns(row.get(columns.prompt), "user") if columns.prompt else []
    if _is_conversation(chosen) or _is_conversation(rejected):
        shared = _shared_start(chosen, rejected)
        # A prompt column beside whole conversations repeats what they contain; the conversations are the fuller text.
        asked, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
    system = row.get(columns.system) if columns.system else None
    if isinstance(system, str) and system.strip() and not any(turn["role"] == "system" for turn in asked):
        asked = [{"role": "system", "content": system}, *asked]
    if not asked:
        raise DataError("have no question")
    if asked[-1]["role"] != "user":
        raise DataError("have a question that does not end with a user turn")
    for answer in (chosen, rejected):
        if not answer or any(turn["role"] == "user" for turn in answer) or not answer[-1]["content"].strip():
            raise DataError("have an empty answer or one that is not the assistant's")
    if [turn["content"].strip() for turn in chosen] == [turn["content"].strip() for turn in rejected]:
        raise DataError("have the same answer twice, which teaches nothing")
    return Pair(asked, chosen, rejected)


def _turns(value: Any, role: str) -> list[Message]:
    """Messages from a text or a list of turns in either dialect (role/content, from/value)."""
    if value is None:
        return []
    if isinstance(value, str):
        return [{"role": role, "content": value}] if value.strip() else []
    if not isinstance(value, (list, tuple)):
        raise DataError(f"hold a {type(value).__name__} where text or turns belong")
    turns = []
    for turn in value:
        if not isinstance(turn, Mapping):
            raise DataError("hold turns that are not messages")
        speaker, text = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        if not isinstance(speaker, str) or not isinstance(text, str):
            raise DataError("hold turns without a role or a text")
        turns.append({"role": ROLES.get(speaker, speaker), "content": text})
    return turns


def _is_conversation(turns: list[Message]) -> bool:
    return any(turn["role"] == "user" for turn in turns)


def _shared_start(chosen: list[Message], rejected: list[Message]) -> int:
    """How many turns both conversations begin with, leaving at least the last turn as the answer."""
    shared = 0
    for one, other in zip(chosen[:-1], rejected[:-1], strict=False):
        if one != other:
            break
        shared += 1
    while shared and chosen[shared - 1]["role"] != "user":
        shared -= 1
    return shared


def _first(wanted: Iterable[str], names: list[str]) -> str:
    """The first of the wanted names that is a column, letter case aside."""
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in wanted if name in lower), "")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:12]) + (" ..." if len(names) > 12 else "") or "none"
