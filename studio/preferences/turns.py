"""Texts, lists of turns and transcripts -> messages; a question with two answers -> a pair that has been checked.

Whatever cannot be a pair raises DataError with a reason that reads after a count: 3 rows "have an empty answer".
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from studio.errors import DataError
from studio.preferences.pairs import Message, Pair

ROLES = {"user": "user", "human": "user", "prompter": "user",
         "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "chatbot": "assistant",
         "model": "assistant", "ai": "assistant",
         "system": "system", "developer": "system",
         "tool": "tool", "observation": "tool", "function": "function", "ipython": "ipython"}
TOOLS = ("tool", "function", "ipython")
ASKING = ("user", *TOOLS)
"""Whose turn an answer can follow."""
KEPT = ("name", "tool_calls", "tool_call_id", "reasoning_content", "thinking")
"""What a message may hold beside role and content, and chat templates read."""
WRONG = {("", "assistant"): "start with the assistant", ("system", "assistant"): "start with the assistant",
         ("user", "user"): "have two user turns in a row", ("assistant", "assistant"): "have two assistant turns in a row",
         **{(before, "tool"): "have a tool turn that follows no assistant turn" for before in ("", "system", "user")}}
"""Which turn may not follow which. The turn before the first is empty."""


# --- values as messages -----------------------------------------------------------------------------------------------


def turns(value: Any, role: str, dialect: str = "") -> list[Message]:
    """Messages from a text of that role, a turn, or a list of turns (role/content or from/value); empty if there is nothing."""
    if isinstance(value, str):
        return _of_text(value, role, dialect)
    if value is None:
        return []
    if isinstance(value, Mapping):
        value = unzipped(value)
    if not isinstance(value, list | tuple):
        raise DataError(f"hold {_kind(value)} where text or turns belong")
    return [_message(turn) for turn in value]


def unzipped(value: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The structs of one that holds a list in each field, as some writers store lists of structs; else itself alone."""
    if value and all(isinstance(items, list) for items in value.values()):
        return [dict(zip(value, items, strict=False)) for items in zip(*value.values(), strict=False)]
    return [value] if value else []


def _message(turn: Any) -> Message:
    if not isinstance(turn, Mapping):
        raise DataError("hold turns that are not messages")
    speaker, content = turn.get("role") or turn.get("from"), turn.get("content", turn.get("value"))
    if not isinstance(speaker, str):
        raise DataError("hold a nested struct where text or turns belong" if content is None else "hold turns without a role")
    role = ROLES.get(speaker) or ROLES.get(speaker.strip().lower())
    if role is None:
        raise DataError(f"hold turns of the unknown role “{speaker[:40]}”")
    extra = {key: _without_gaps(turn[key]) for key in KEPT if turn.get(key)} if len(turn) > 2 else {}
    if content is None and role == "assistant" and "tool_calls" in extra:
        content = ""  # templates write None as a word
    return {"role": role, "content": content if isinstance(content, str) else _of_parts(content), **extra}


def _of_parts(content: Any) -> str:
    """The text of a content that is given in parts, put together as chat templates do it."""
    if content is None:
        raise DataError("hold turns without a text")
    if not isinstance(content, list | tuple):
        raise DataError(f"hold {_kind(content)} where text belongs")
    texts = []
    for part in content:
        kind, text = (part.get("type") or "text", part.get("text")) if isinstance(part, Mapping) else ("text", part)
        if kind != "text":
            named = "an image" if str(kind).startswith("image") else f"a part of the type “{str(kind)[:40]}”"
            raise DataError(f"hold {named}, which this studio does not train on")
        if not isinstance(text, str):
            raise DataError(f"hold {_kind(text)} where text belongs")
        texts.append(text)
    return "".join(texts)


def _without_gaps(value: Any) -> Any:
    """The value without the nulls that Arrow puts where one struct of a list has a field that another has not."""
    if isinstance(value, Mapping):
        return {key: _without_gaps(item) for key, item in value.items() if item is not None}
    return [_without_gaps(item) for item in value] if isinstance(value, list | tuple) else value


def _kind(value: Any) -> str:
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, Mapping):
        return "a nested struct"
    return {"list": "a list", "bytes": "bytes", "NoneType": "nothing"}.get(type(value).__name__, f"a {type(value).__name__}")


# --- transcripts ------------------------------------------------------------------------------------------------------

SPEAKER = re.compile(r"\n\n(Human|Assistant):")
CHATML = re.compile(r"<\|im_start\|>\s*(\w+)\s*?\n(.*?)(?:<\|im_end\|>|(?=<\|im_start\|>)|\Z)", re.DOTALL)
DIALECTS = {"human": "transcripts (“Human:”, “Assistant:”)", "chatml": "transcripts in ChatML (“<|im_start|>”)"}
"""How whole conversations are written in one text, with their names in words."""


def dialect_of(texts: Sequence[str]) -> str:
    """The dialect in which at least half of the texts are transcripts, or an empty name."""
    def speaks(text: str) -> str:
        start = text.lstrip()
        if start.startswith("<|im_start|>"):
            return "chatml"
        return "human" if start.startswith("Human:") and "\n\nAssistant:" in start else ""

    spoken = [speaks(text) for text in texts]
    return next((name for name in DIALECTS if spoken.count(name) * 2 >= max(1, len(spoken))), "")


def _of_text(text: str, role: str, dialect: str) -> list[Message]:
    """One turn, or those of a transcript. A question's last turn may be the answer's empty beginning, which is no turn."""
    found: Iterable[tuple[str, str]] = ()
    if dialect == "human" and (start := text.lstrip()).startswith(("Human:", "Assistant:")):
        pieces = iter(SPEAKER.split(f"\n\n{start}")[1:])
        found = zip(pieces, pieces, strict=True)
    elif dialect == "chatml":
        found = CHATML.findall(text)
        text = text.strip().removesuffix("<|im_end|>")
    spoken = [_message({"role": speaker, "content": said.strip()}) for speaker, said in found]
    if role == "user" and spoken and spoken[-1] == {"role": "assistant", "content": ""}:
        spoken.pop()
    return spoken or ([{"role": role, "content": text}] if text.strip() else [])


# --- pairs ------------------------------------------------------------------------------------------------------------


def is_whole(answer: Sequence[Message]) -> bool:
    """Whether this is a conversation from its beginning, rather than an answer."""
    return bool(answer) and answer[0]["role"] in ("user", "system")


def divided(chosen: list[Message], rejected: list[Message]) -> tuple[list[Message], list[Message], list[Message]]:
    """Question and answers of two sides of which at least one is a whole conversation: what they share, and what follows."""
    whole = [side for side in (chosen, rejected) if is_whole(side)]
    if any(side[-1]["role"] != "assistant" for side in whole):
        raise DataError("have an answer that is not the assistant's")
    if len(whole) == 1:
        question, answer = parted(whole[0])
        return question, *((answer, rejected) if whole[0] is chosen else (chosen, answer))
    shared = 0
    for one, other in zip(chosen[:-1], rejected[:-1], strict=False):
        if one != other and _bare(one) != _bare(other):
            break
        shared += 1
    if any(side[shared]["role"] in ("user", "system") for side in whole):
        raise DataError("have different questions on the two sides")
    while shared and chosen[shared - 1]["role"] not in ASKING:
        shared -= 1
    return chosen[:shared], chosen[shared:], rejected[shared:]


def parted(conversation: list[Message]) -> tuple[list[Message], list[Message]]:
    """A conversation up to the last turn that asks, and what answers it."""
    end = next((place for place in range(len(conversation), 0, -1) if conversation[place - 1]["role"] in ASKING), 0)
    return conversation[:end], conversation[end:]


def joined(prompt: list[Message], chosen: list[Message], rejected: list[Message]) -> Pair:
    """The pair, if there is a question, two answers of the assistant that differ, and turns in an order templates allow."""
    if not prompt and any(turn["role"] == "user" for turn in chosen):
        raise DataError(WRONG["", "assistant"])
    check_question(prompt)
    for answer in (chosen, rejected):
        check_answer(prompt, answer)
    if len(chosen) == len(rejected) and all(map(lambda one, other: _bare(one) == _bare(other), chosen, rejected)):
        raise DataError("have the same answer twice, which teaches nothing")
    return Pair(prompt, chosen, rejected)


def check_question(prompt: Sequence[Message]) -> None:
    """Raises DataError unless there is a question that an answer can follow."""
    if all(turn["role"] == "system" for turn in prompt):
        raise DataError("have no question")
    if prompt[-1]["role"] not in ASKING:
        raise DataError("have a question that does not end with a user turn")
    if prompt[-1]["role"] == "user" and not prompt[-1]["content"].strip():
        raise DataError("have no question")
    _check_order("", prompt)


def check_answer(prompt: Sequence[Message], answer: Sequence[Message]) -> None:
    """Raises DataError unless this is an answer of the assistant's to that question."""
    if not answer:
        raise DataError("have an empty answer")
    if answer[0]["role"] != "assistant" or answer[-1]["role"] != "assistant":
        raise DataError("have an answer that is not the assistant's")
    if not answer[-1]["content"].strip() and "tool_calls" not in answer[-1]:
        raise DataError("have an empty answer")
    if len(answer) > 1:
        _check_order(prompt[-1]["role"], answer)


def _check_order(before: str, following: Iterable[Message]) -> None:
    for turn in following:
        role = "tool" if turn["role"] in TOOLS else turn["role"]
        if (before, role) in WRONG:
            raise DataError(WRONG[before, role])
        if role == "system" and before:
            raise DataError("have a system turn that is not the first")
        before = role


def _bare(turn: Message) -> Message:
    return {**turn, "content": turn["content"].strip()}


def repeats(question: Sequence[Message], conversation: Sequence[Message]) -> bool:
    """Whether a question says nothing that the conversation does not: its last turn is among the conversation's."""
    return not question or any(_bare(question[-1]) == _bare(turn) for turn in conversation)
