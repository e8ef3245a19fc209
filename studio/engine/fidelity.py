"""Whether what a pair says is in the text that the chat template makes of it: what is lost, of which side, and why.

A template may drop a part of an answer without a word: thinking, tool calls, a whole turn. The model then learns something else than
the data say. Each pair's losses are the bits of one number, so that a million of them take little room.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from os.path import commonprefix
from typing import Any, NamedTuple

from studio.engine.rendering import parsed
from studio.preferences.findings import NAMED, share
from studio.preferences.pairs import Message, Pair

SIDES = {"prompt": "the question", "chosen": "the better answer", "rejected": "the worse answer"}
KINDS = {"text": "text", "thinking": "the thinking", "calls": "the tool calls", "system": "the system turn", "tools": "the tools"}
BITS = {which: 1 << place for place, which in enumerate(product(SIDES, KINDS))}
"""The bit of each kind of loss, by side and kind."""
EMPTY, ALIKE = 1 << 30, 1 << 31
"""Nothing is left of one of the answers; the two answers became the same text."""
THINKING = re.compile(r"<(think|thinking|thought|reasoning|reflection)>(.*?)(?:</\1>|\Z)|\[THINK\](.*?)(?:\[/THINK\]|\Z)", re.DOTALL)
END = "</think>"
EMPTIED = "empty-answer"
"""The loss at which a run stops."""
SPECIAL = ("reasoning_content", "thinking")


class Piece(NamedTuple):
    """Something that a turn says, and in which ways a template may write it."""

    kind: str
    spellings: tuple[str, ...]

    def is_in(self, text: str, bare: str) -> bool:
        """Whether a rendered text holds it; `bare` is the same text without white space."""
        return any(spelling in text or _bare(spelling) in bare for spelling in self.spellings)


def losses(pair: Pair, texts: tuple[str, str, str]) -> int:
    """What of a pair is not in its three rendered texts (prompt, chosen and rejected), as bits. EMPTY is not among them."""
    prompt, found = texts[0], 0
    if pair.tools and not all(value in prompt or _spellings(value)[1] in prompt for tool in pair.tools for value in _described(tool)):
        found |= BITS["prompt", "tools"]
    sides = zip(SIDES, (pair.prompt, pair.chosen, pair.rejected), texts, strict=True)
    for side, turns, text in sides:
        shared = len(prompt) if text.startswith(prompt) else len(commonprefix((prompt, text)))  # which is slow
        said = text if side == "prompt" else text[shared:]
        found |= _lost(side, turns, said)
    return found | ALIKE * (texts[1] == texts[2])


def _lost(side: str, turns: Sequence[Message], text: str) -> int:
    found, bare = 0, None
    for turn in turns:
        if _whole(turn) and turn["content"].strip() in text:  # the common case, without taking the text apart
            continue
        bare = _bare(text) if bare is None else bare
        for piece in pieces(turn):
            if not piece.is_in(text, bare):
                found |= BITS[side, piece.kind]
    return found


def _whole(turn: Message) -> bool:
    """Whether a turn says nothing beside its content."""
    return len(turn) == 2 or not ("tool_calls" in turn or any(name in turn for name in SPECIAL))


def pieces(turn: Message) -> Iterator[Piece]:
    """All that a turn says: text, thinking within or beside it, and its tool calls with their names and values."""
    kind, content = "system" if turn["role"] == "system" else "text", turn["content"] or ""
    for name in SPECIAL:
        if isinstance(turn.get(name), str) and turn[name].strip():
            yield Piece("thinking", (turn[name].strip(),))
    if turn["role"] == "assistant":
        before, end, after = content.partition(END)
        if end and not THINKING.search(before):  # its beginning stands in the prompt
            content = f"<think>{before}{end}{after}"
        for match in THINKING.finditer(content):
            if thought := (match[2] or match[3] or "").strip():
                yield Piece("thinking", (thought,))
        parts = THINKING.sub("\0", content).split("\0")
    else:
        parts = [content]
    for part in filter(str.strip, parts):
        yield Piece(kind, (part.strip(), json.dumps(part.strip(), ensure_ascii=False)[1:-1]))
    for call in turn.get("tool_calls") or ():
        for value in _values(call):
            yield Piece("calls", _spellings(value))


def _values(call: Any) -> Iterator[Any]:
    """A call's name and every text and number among its arguments."""
    function = call.get("function", call) if isinstance(call, Mapping) else {}
    if not isinstance(function, Mapping):
        return
    if isinstance(function.get("name"), str):
        yield function["name"]
    yield from _leaves(parsed(function.get("arguments", function.get("parameters"))))


def _leaves(value: Any, depth: int = 0) -> Iterator[Any]:
    if isinstance(value, Mapping | list | tuple) and depth < 20:
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _leaves(item, depth + 1)
    elif isinstance(value, str | int | float) and not isinstance(value, bool) and value != "":
        yield value


def _spellings(value: Any) -> tuple[str, ...]:
    """A value as templates write it: as it is, as JSON with other letters or without, and as JSON within JSON."""
    if not isinstance(value, str):
        return (json.dumps(value), str(value))
    written = json.dumps(value, ensure_ascii=False)[1:-1]
    return value, written, json.dumps(value)[1:-1], json.dumps(written, ensure_ascii=False)[1:-1]


def _described(tool: Any) -> list[str]:
    """The name and the description of a tool."""
    inner = tool.get("function", tool) if isinstance(tool, Mapping) else {}
    return [inner[name] for name in ("name", "description") if isinstance(inner, Mapping) and isinstance(inner.get(name), str)]


def _bare(text: str) -> str:
    return "".join(text.split())


def emptied(pair: Pair, found: int) -> list[str]:
    """The sides of which every piece is lost, so that nothing may be left of them."""
    return [side for side in ("chosen", "rejected")
            if (kinds := {piece.kind for turn in getattr(pair, side) for piece in pieces(turn)})
            and all(found & BITS[side, kind] for kind in kinds)]


def blank(answer: Sequence[Message]) -> list[Message]:
    """An answer of as many turns that says nothing."""
    return [{"role": turn["role"], "content": ""} for turn in answer]


# --- in words ---------------------------------------------------------------------------------------------------------


class Loss(NamedTuple):
    """What is lost in some pairs: a name, how grave that is, the places of these pairs, and a sentence without its count."""

    name: str
    weight: str
    places: list[int]
    words: str


def told(found: Sequence[int], template: str) -> list[Loss]:
    """Every kind of loss among pairs, the gravest first. `template` is the source of the chat template, for the reasons."""
    losses: list[Loss] = []

    def add(name: str, weight: str, mask: int, words: str) -> None:
        if places := [place for place, bits in enumerate(found) if bits & mask]:
            losses.append(Loss(name, weight, places, words))

    add(EMPTIED, "bad", EMPTY, f"have an answer of which the chat template writes nothing{_because(found, template)}, so the model "
        "would learn to say nothing. A run stops at them: choose a model whose chat template writes it, or tick “Leave out unusable rows”.")
    for kind, weight in (("calls", "bad"), ("text", "bad"), ("thinking", "bad"), ("tools", "warn"), ("system", "bad")):
        sides = [side for side in SIDES if any(bits & BITS[side, kind] for bits in found)]
        if not sides:
            continue
        mask = sum(BITS[side, kind] for side in sides)
        if kind == "thinking" and sides == ["prompt"]:
            weight = "hint"  # most templates drop what was thought about earlier questions, in training as in chat
        where = " and of ".join(SIDES[side] for side in sides)
        lost = f"{KINDS[kind]} of {where}" if kind in ("text", "thinking", "calls") else f"{KINDS[kind]} beside {where}"
        add(f"lost-{kind}", weight, mask, f"lose {lost}: {_why(kind, template)}. The model does not learn it.")
    add("alike", "bad", ALIKE, "are left out: the chat template writes both answers alike, because what differs is what it leaves out.")
    return losses


def in_words(loss: Loss, number: Callable[[int], int], total: int) -> str:
    """A loss among all pairs with its count and the first rows, as a run says it. `number` gives the row of the pair at a place."""
    rows = ", ".join(f"{row:,}" for row in sorted(map(number, loss.places[:NAMED]))[:5])
    return f"{share(len(loss.places), total)} {loss.words} Rows: {rows}{' …' * (len(loss.places) > 5)}."


def _because(found: Sequence[int], template: str) -> str:
    """In brackets why nothing is left."""
    empty = [bits for bits in found if bits & EMPTY]
    kinds = (kind for kind in ("calls", "thinking", "text")
             if any(bits & (BITS["chosen", kind] | BITS["rejected", kind]) for bits in empty))
    return f" ({_why(kind, template)})" if (kind := next(kinds, "")) else ""


def _why(kind: str, template: str) -> str:
    if kind == "calls":
        return "the chat template writes tool calls in another way" if "tool_calls" in template else "the chat template knows no tool calls"
    if kind == "tools":
        return "the chat template does not list them" if "tools" in template else "the chat template knows no tools"
    if kind == "thinking":
        return "the chat template takes thinking out" if "think" in template else "the chat template does not read it"
    return "the chat template leaves it out or writes it differently"
