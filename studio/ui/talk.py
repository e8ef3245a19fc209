"""The two talks of Compare: what was said in them, what is offered to be asked, and the pair that a preference makes of them."""

import json
from contextlib import suppress
from itertools import islice
from typing import Any

from studio import whole
from studio.chat import Answers
from studio.errors import StudioError
from studio.preferences.pairs import Message, Pair
from studio.runs import Run
from studio.ui.seats import Seats
from studio.votes import Preferred

QUESTIONS, LONGEST_QUESTION, LOOKED_THROUGH = 30, 300, 500
"""Questions offered, characters of each, and held-out pairs among which they are looked for."""
SILENT = "…"
"""Stands for an answer that has no word yet."""


def flat(history: list[dict[str, Any]]) -> list[Message]:
    """A chatbot's messages, which hold content blocks, as plain ones."""
    return [{"role": turn["role"], "content": text_of(turn["content"])} for turn in history]


def text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(block.get("text", "") for block in content if isinstance(block, dict))


def refuse_before_both_answered(first: list[Message], second: list[Message]) -> None:
    """Raises StudioError where there is nothing to prefer yet."""
    if len(first) < 2 or len(second) < 2 or SILENT in (first[-1]["content"], second[-1]["content"]):
        raise StudioError("There are no two answers yet. Ask both a question first.")


def preferred(first: list[Message], second: list[Message], who: Preferred, own: str | None = None) -> Pair:
    """The pair that a person makes of both answers: that of the first or the second is better, or their own than the second's.

    Raises StudioError where the two did not answer the same talk.
    """
    refuse_before_both_answered(first, second)
    if own is not None and not own.strip():
        raise StudioError("Your answer is empty. Write one first.")
    if first[:-1] != second[:-1]:
        raise StudioError("The two have had different talks by now, and a pair needs one question. Start a new chat and ask there.")
    better, worse = (first[-1], second[-1]) if who == 0 else (second[-1], first[-1])
    if own is not None:
        better, worse = {"role": "assistant", "content": own.strip()}, second[-1]
    return Pair(second[:-1], [better], [worse])


def questions(run: Run | None, kept: list[str]) -> list[str]:
    """What to ask of a run without thinking: what a person kept, its fixed prompts, then short questions of held-out pairs,
    which training never saw."""
    if run is None or not run.adapter.is_dir():
        return []
    found: list[str] = []
    with suppress(StudioError):  # settings that cannot be read: there are the other questions
        found += [line.strip() for line in run.settings.evaluation.prompts.splitlines() if line.strip()]
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError), open(
            run.held_out, encoding="utf-8", opener=whole.at_once) as rows:
        for row in islice(rows, LOOKED_THROUGH):
            prompt = json.loads(row)["prompt"]
            if len(prompt) == 1 and 0 < len(prompt[0]["content"]) <= LONGEST_QUESTION:
                found.append(prompt[0]["content"])
    return list(dict.fromkeys([*reversed(kept), *list(dict.fromkeys(found))[:QUESTIONS]]))


def shown(answers: Answers, before: list[list[Message]], seats: Seats) -> list[list[Message]]:
    """Both talks, left and right, with the answers so far behind what was `before`.

    Two that answer in turn would tell by it which is which: while that is hidden, both are silent until both are done.
    """
    if seats.hidden and not answers.together and not answers.done:
        answers = Answers()
    said = seats.sorted(answers.first, answers.second)
    return [[*talk, {"role": "assistant", "content": text or SILENT}] for talk, text in zip(before, said, strict=True)]
