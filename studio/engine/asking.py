"""How a run's pairs ask for an answer, so that whoever asks the model later asks in the same way.

A template may begin each answer when it asks for one (with <think>) though no answer that was learned begins so; and pairs may list
tools. Both are kept in the run's folder, beside the adapter.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from studio import begun
from studio.engine.rendering import render
from studio.preferences.pairs import Message
from studio.runs import Run

FILE = "asking.json"
LOOKED_THROUGH = 500
"""Held-out pairs among which a question's tools are looked for."""


@dataclass(frozen=True)
class Asking:
    """`unlearned` is how the template begins an answer when no pair's answer begins so; `tools` are those that all pairs list.

    `mixed` counts the pairs whose answers do not begin as the template does, where others do.
    """

    unlearned: str = ""
    tools: list[dict[str, Any]] = field(default_factory=list)
    mixed: int = 0

    @classmethod
    def load(cls, folder: Path) -> "Asking":
        """What was saved in a folder; of one where nothing was, that everything is as the template has it."""
        try:
            return cls(**json.loads((folder / FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return cls()

    def save(self, folder: Path) -> None:
        (folder / FILE).write_text(json.dumps(asdict(self)), encoding="utf-8")

    def in_words(self) -> str:
        """What is different from asking as the template does by itself; empty where nothing is."""
        words = []
        if self.unlearned:
            begun = json.dumps(self.unlearned, ensure_ascii=False)[1:-1]
            words.append(f"The chat template begins every answer with “{begun}” when it asks for one, and no pair's answer begins so: "
                         "here the model is asked without it, as it was trained. Elsewhere, ask it so too.")
        if self.mixed:
            words.append(f"The chat template begins every answer with a text of its own when it asks for one, with which {self.mixed:,} "
                         "pairs' better answers do not begin: what they teach is asked for in another way than it was learned.")
        if self.tools:
            words.append(f"All pairs list the same {len(self.tools)} tool{'s' * (len(self.tools) > 1)}: prompts are asked with them.")
        return " ".join(words)


class Common:
    """What many pairs have in common, seen one by one."""

    def __init__(self):
        self.pairs = self.begins_otherwise = 0
        self.longest, self.alike = "", True
        self._tools: list | None = None
        self._same_tools = True

    def see(self, begun: str, tools: list[dict[str, Any]]) -> None:
        """Take note of how the template began an answer otherwise than the pair does, and of the pair's tools."""
        self.pairs += 1
        self.begins_otherwise += bool(begun)
        one, other = sorted((begun, self.longest), key=len)
        self.alike, self.longest = self.alike and other.endswith(one), other
        self._same_tools = self._same_tools and (self._tools is None or self._tools == tools)
        self._tools = tools if self._tools is None else self._tools

    def asking(self) -> Asking:
        """How all of them ask."""
        all_so = self.alike and self.begins_otherwise == self.pairs
        return Asking(self.longest if all_so else "", (self._tools or []) if self._same_tools else [],
                      0 if all_so else self.begins_otherwise)


class Asker:
    """Writes prompts as a run's pairs did, with the run's date (`moment` spares reading it from the log)."""

    def __init__(self, run: Run, tokenizer: PreTrainedTokenizerBase, moment: datetime | None = None):
        self.asking, self._tokenizer, self._moment = Asking.load(run.folder), tokenizer, moment or begun.moment(run)
        self._tools = dict(_tools_by_question(run))

    def prompt(self, talk: list[Message]) -> str:
        """A talk as text, up to where the answer begins. Raises Refusal for one that the template does not take."""
        tools = self._tools.get(_question(talk), self.asking.tools) or None
        text = render(self._tokenizer, talk, self._moment, add_generation_prompt=True, tools=tools)
        return text.removesuffix(self.asking.unlearned)


def _tools_by_question(run: Run) -> Iterator[tuple[str, list]]:
    """The tools of held-out pairs, by their first question."""
    try:
        with open(run.held_out, encoding="utf-8") as rows:
            for row in islice(rows, LOOKED_THROUGH):
                if '"tools"' in row and (found := json.loads(row)).get("tools"):
                    yield _question(found["prompt"]), found["tools"]
    except (OSError, ValueError, KeyError, TypeError):
        return


def _question(talk: list[Message]) -> str:
    return next((turn["content"] for turn in talk if turn["role"] == "user"), "")
