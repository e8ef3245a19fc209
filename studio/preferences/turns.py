"""Texts, lists of turns and transcripts -> messages; a question with two answers -> a pair that has been checked.

Whatever cannot be a pair raises DataError with a reason that reads after a count: 3 rows "have an empty answer".
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from studio.errors import DataError
from studio.preferences import transcripts
from studio.preferences.pairs import Message, Pair
from studio.preferences.transcripts import ROLES

TOOLS = ("tool", "function", "ipython")
ASKING = ("user", *TOOLS)
"""Whose turn an answer can follow."""
KEPT = ("name", "tool_calls", "tool_call_id", "reasoning_content", "thinking")
"""What a message may hold beside role and content, and chat templates read."""
SPEAKER = ("role", "from", "speaker", "author", "sender")
CONTENT = ("content", "value", "text", "message", "parts")
"""What other tools call the two fields of a turn."""
AROUND = ("messages", "conversations", "conversation", "contents", "turns", "choices", "message")
"""What a struct calls the turns that are all it holds."""
TEXT_PARTS = ("text", "input_text", "output_text")
WRONG = {("", "assistant"): "start with the assistant", ("system", "assistant"): "start with the assistant",
         ("user", "user"): "have two user turns in a row", ("assistant", "assistant"): "have two assistant turns in a row",
         **{(before, "tool"): "have a tool turn that follows no assistant turn" for before in ("", "system", "user")}}
"""Which turn may not follow which. The turn before the first is empty."""


# --- values as messages -----------------------------------------------------------------------------------------------


def turns(value: Any, role: str, dialect: str = "") -> list[Message]:
    """Messages from a text of that role, a turn, or a list of turns; empty if there is nothing.

    A turn is a struct with a role and a content, under the names that other tools give them. Structs around turns are
    taken off ({"messages": [...]}), and a list of one text is that text.
    """
    if isinstance(value, str):
        return _of_text(value, role, dialect)
    if value is None:
        return []
    if isinstance(value, Mapping):
        # A struct of lists may be zipped turns; one around turns, whose only field is a list as well, is not.
        value = [value] if any(isinstance(value.get(name), list | tuple) for name in AROUND) else unzipped(value)
    if not isinstance(value, list | tuple):
        raise DataError(f"hold {_kind(value)} where text or turns belong")
    if len(value) == 1:
        return _of_one(value[0], role, dialect)
    return [_message(turn) for turn in value]


def _of_one(value: Any, role: str, dialect: str) -> list[Message]:
    """The turns of a list that holds one thing: a text, a turn, a list of turns or a struct around them."""
    if isinstance(value, str | list | tuple):
        return turns(value, role, dialect)
    if isinstance(value, Mapping) and not any(value.get(name) for name in SPEAKER):
        if (around := next((value[name] for name in AROUND if value.get(name) is not None), None)) is not None:
            return turns(around, role, dialect)
        if is_parts(value):
            return turns(_of_parts([value]), role, dialect)
    return [_message(value)]


def speaker_of(turn: Mapping[str, Any]) -> Any:
    """What a struct calls its speaker, which may itself be a struct ({"author": {"role": "user"}}); None if it names none."""
    found = next((turn[name] for name in SPEAKER if turn.get(name)), None)
    return next((found[name] for name in SPEAKER if found.get(name)), None) if isinstance(found, Mapping) else found


def content_of(turn: Mapping[str, Any]) -> Any:
    """What a struct says: a text, parts, or None."""
    found = next((turn[name] for name in CONTENT if turn.get(name) is not None), None)
    return found["parts"] if isinstance(found, Mapping) and "parts" in found else found


def is_turn(value: Any) -> bool:
    """Whether a value is a struct with a speaker that is known and something that it says."""
    if not isinstance(value, Mapping):
        return False
    speaker = speaker_of(value)
    return isinstance(speaker, str) and speaker.strip().lower() in ROLES and (
        content_of(value) is not None or bool(value.get("tool_calls")))


def is_parts(value: Any) -> bool:
    """Whether a value is a part of a content: a struct with a text and at most its type, or one that says which type it has."""
    return isinstance(value, Mapping) and not any(value.get(name) for name in SPEAKER) and (
        "type" in value or (len(value) <= 2 and isinstance(value.get("text"), str)))


def interleaved(questions: Sequence[str], answers: Sequence[str]) -> list[Message]:
    """One conversation of as many questions as answers, asked and answered in turn."""
    asked, said = ([{"role": role, "content": text} for text in texts] for role, texts in (("user", questions), ("assistant", answers)))
    return [turn for both in zip(asked, said, strict=True) for turn in both]


def earlier(value: Any) -> list[Message]:
    """The turns before the question: messages, or questions with their answers, as lists or structs of two texts or one after the other."""
    if isinstance(value, Mapping):
        value = unzipped(value)
    if not isinstance(value, list | tuple) or not value:
        return []
    if all(isinstance(both, list | tuple) and len(both) == 2 and all(isinstance(text, str | None) for text in both) for both in value):
        return [turn for asked, said in value for turn in _exchange(asked, said)]
    if all(isinstance(both, Mapping) and len(both) == 2 and not is_turn(both) and all(isinstance(text, str) for text in both.values())
           for both in value):
        return [turn for both in value for turn in _exchange(*both.values())]
    if all(isinstance(text, str) for text in value):  # in turn, the question's asker first
        if len(value) % 2:
            raise DataError("hold earlier turns of which it is not clear who speaks")
        return [turn for at in range(0, len(value), 2) for turn in _exchange(*value[at : at + 2])]
    return turns(list(value), "user")


def _exchange(asked: str | None, said: str | None) -> Iterator[Message]:
    for role, text in (("user", asked), ("assistant", said)):
        if not text or not text.strip():
            raise DataError("hold an earlier turn without a text")
        yield {"role": role, "content": text}


def unzipped(value: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The structs of one that holds a list in each field, as some writers store lists of structs; else itself alone."""
    if value and all(isinstance(items, list) for items in value.values()):
        return [dict(zip(value, items, strict=False)) for items in zip(*value.values(), strict=False)]
    return [value] if value else []


def _message(turn: Any) -> Message:
    if not isinstance(turn, Mapping):
        raise DataError("hold turns that are not messages")
    speaker, content = speaker_of(turn), content_of(turn)
    if not isinstance(speaker, str):
        raise DataError("hold a nested struct where text or turns belong" if content is None else "hold turns without a role")
    role = ROLES.get(speaker) or ROLES.get(speaker.strip().lower())
    if role is None:
        raise DataError(f"hold turns of the unknown role “{speaker[:40]}”")
    extra = {key: without_gaps(turn[key]) for key in KEPT if turn.get(key)} if len(turn) > 2 else {}
    if content is None and role == "assistant" and "tool_calls" in extra:
        content = ""  # templates write None as a word
    return {"role": role, "content": content if isinstance(content, str) else _of_parts(content), **extra}


def _of_parts(content: Any) -> str:
    """The text of a content that is given in parts, put together as chat templates do it."""
    if content is None:
        raise DataError("hold turns without a text")
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, list | tuple):
        raise DataError(f"hold {_kind(content)} where text belongs")
    return "".join(map(_of_part, content))


def _of_part(part: Any) -> str:
    """What one part says. Raises DataError for an image, a sound and whatever else is not a text."""
    if not isinstance(part, Mapping):
        text, kind = part, "text"
    else:
        text = next((part[name] for name in ("text", "value", "content") if part.get(name) is not None), None)
        if isinstance(text, Mapping):  # {"type": "text", "text": {"value": ...}}
            text = next((text[name] for name in ("value", "text") if name in text), None)
        others = [name for name, value in part.items() if value and name not in (*CONTENT, *SPEAKER, "type", "loss_weight", "annotations")]
        # Without a type, a part is what the only thing in it is called: {"image_url": ...}, {"inlineData": ...}.
        kind = str(part.get("type") or ("text" if text is not None or not others else others[0]))
    if kind not in TEXT_PARTS:
        named = "an image" if re.match("image|inline_?data|file_?data", kind, re.IGNORECASE) else f"a part of the type “{kind[:40]}”"
        raise DataError(f"hold {named}, which this studio does not train on")
    if not isinstance(text, str):
        raise DataError(f"hold {_kind(text)} where text belongs")
    return text


def without_gaps(value: Any) -> Any:
    """The value without the nulls that Arrow puts where one struct of a list has a field that another has not."""
    if isinstance(value, Mapping):
        return {key: without_gaps(item) for key, item in value.items() if item is not None}
    return [without_gaps(item) for item in value] if isinstance(value, list | tuple) else value


def _kind(value: Any) -> str:
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, Mapping):
        return "a nested struct"
    return {"list": "a list", "bytes": "bytes", "NoneType": "nothing"}.get(type(value).__name__, f"a {type(value).__name__}")


def _of_text(text: str, role: str, dialect: str) -> list[Message]:
    """One turn, or those of a transcript."""
    if spoken := transcripts.parsed(text, dialect, role):
        return [_message({"role": speaker, "content": said}) for speaker, said in spoken]
    text = transcripts.without_end(text, dialect)
    return [{"role": role, "content": text}] if text.strip() else []


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
