"""Whole conversations that are written in one text, taken apart: how each dialect marks its turns, and which one some texts are in.

A text is taken apart only where nothing of it is lost: what stands between two turns raises a DataError.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from studio.errors import DataError

ROLES = {"user": "user", "human": "user", "prompter": "user", "client": "user", "customer": "user",
         "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "chatbot": "assistant",
         "model": "assistant", "ai": "assistant", "agent": "assistant",
         "system": "system", "developer": "system",
         "tool": "tool", "observation": "tool", "function": "function", "ipython": "ipython"}
"""What speakers are called -> the role that chat templates know."""
SPOKEN = ROLES | {"instruction": "user", "input": "user", "question": "user", "q": "user", "response": "assistant", "answer": "assistant",
                  "output": "assistant", "a": "assistant", "用户": "user", "助手": "assistant", "问": "user", "答": "assistant",
                  "人类": "user", "ユーザー": "user", "アシスタント": "assistant", "사용자": "user", "어시스턴트": "assistant"}
"""The same and what stands before a colon in transcripts that people write."""
NAMED = "|".join(sorted(map(re.escape, ROLES), key=len, reverse=True))
BEFORE_COLON = "|".join(sorted(map(re.escape, SPOKEN), key=len, reverse=True))
CLOSING = (r"</s>|<eos>|<end_of_turn>|<\|(?:end|eot|eos|endoftext|end_of_text|im_end|eot_id|eom_id|end_of_turn)\|>"
           r"|<[|｜]end[▁_]of[▁_]sentence[|｜]>")
OPENING = re.compile(r"\s*(?:(?:<s>|<bos>|<\|(?:begin_of_text|startoftext|endoftext)\|>|<[|｜]begin[▁_]of[▁_]sentence[|｜]>"
                     r"|\[gMASK\]|<sop>)\s*)*")
CLOSED = re.compile(rf"(?:{CLOSING}|<s>|<bos>)")
ENDS = re.compile(rf"(?:{CLOSING})\s*\Z")


@dataclass(frozen=True)
class Dialect:
    """`turn` finds where a turn begins, its group the speaker; `both` demands that a text has a second turn or an open end."""

    words: str
    turn: re.Pattern
    both: bool = False
    leads: bool = True
    """Whether a text before the first turn is a system turn; otherwise a text with one is no transcript."""


DIALECTS = {
    "human": Dialect("transcripts (“Human:”, “Assistant:”)", re.compile(r"(?:\A|\n\n)(Human|Assistant):"), True, False),
    "chatml": Dialect("transcripts in ChatML (“<|im_start|>”)", re.compile(r"<\|im_start\|>[ \t]*(\w+)[ \t]*\n")),
    "llama3": Dialect("transcripts with Llama's headers (“<|start_header_id|>”)",
                      re.compile(r"<\|(?:start_header_id|header_start)\|>\s*(\w+)\s*<\|(?:end_header_id|header_end)\|>")),
    "tags": Dialect("transcripts with a mark for each speaker (“<|user|>”, “<|assistant|>”)",
                    re.compile(rf"<[|｜]\s*({NAMED})\s*[|｜]>", re.IGNORECASE)),
    "gemma": Dialect("transcripts in Gemma's form (“<start_of_turn>”)", re.compile(r"<start_of_turn>[ \t]*(\w+)[ \t]*\n")),
    "llama2": Dialect("transcripts in Llama 2's and Mistral's form (“[INST]”)", re.compile(r"(\[/?INST\]|<</?SYS>>)")),
    "hashes": Dialect("transcripts with headings (“### Human:”, “### Assistant:”)",
                      re.compile(rf"(?:\A|(?<=\n))###[ \t]*({BEFORE_COLON})[ \t]*[:：]", re.IGNORECASE), True),
    "speakers": Dialect("transcripts (“User:”, “Assistant:”)",
                        re.compile(rf"(?:\A|(?<=\n))[ \t]*(?:<|\[|\*\*)?({BEFORE_COLON})(?:>|\]|\*\*)?[ \t]*[:：]", re.IGNORECASE),
                        True, False),
    "one line": Dialect("transcripts (“USER:”, “ASSISTANT:”)", re.compile(r"(?:\A|(?<=\s)|(?<=</s>))(USER|ASSISTANT|SYSTEM):"), True),
}
"""How whole conversations are written in one text, the most certain first."""
INST = {"[INST]": "user", "[/INST]": "assistant", "<<SYS>>": "system", "<</SYS>>": "user"}


def dialect_of(texts: Sequence[str]) -> str:
    """The dialect in which at least half of the texts are transcripts, or an empty name."""
    def speaks(text: str) -> str:
        return next((name for name in DIALECTS if _is_one(text, name)), "")

    spoken = [speaks(text) for text in texts]
    return next((name for name in DIALECTS if spoken.count(name) * 2 >= max(1, len(spoken))), "")


def parsed(text: str, dialect: str, role: str) -> list[tuple[str, str]]:
    """Speaker and text of each turn, none where this is no transcript; of an answer, only where it begins as one.

    A question's last turn may be the answer's empty beginning, which is no turn.
    """
    if not dialect:
        return []
    text = text[OPENING.match(text).end() :]
    starts = list(DIALECTS[dialect].turn.finditer(text))
    if not starts or (text[: starts[0].start()].strip() and (role == "assistant" or not _is_one(text, dialect))):
        return []
    found = []
    if lead := _closed(text[: starts[0].start()]):
        found.append(("system", lead))
    for start, end in zip(starts, [*(start.start() for start in starts[1:]), len(text)], strict=True):
        speaker, said = start[1], _closed(text[start.end() : end])
        speaker = INST.get(speaker) or SPOKEN.get(speaker.lower(), speaker)
        if speaker == "user" and found and found[-1][0] == "user":  # an instruction and its input
            said = "\n\n".join(filter(None, (found.pop()[1], said)))
        if said or dialect != "llama2" or start.re is not DIALECTS["llama2"].turn or speaker == "assistant":
            found.append((speaker, said))
    if found[-1] == ("assistant", "") and role == "user":
        found.pop()
    return found


def without_end(text: str, dialect: str) -> str:
    """An answer without the marks with which its dialect ends a turn; without any, to the byte as it is."""
    while dialect and (found := ENDS.search(text, max(0, len(text) - 60))):
        text = text[: found.start()].rstrip()
    return text


def _closed(said: str) -> str:
    """What a turn says, without what closes it. Raises DataError if more follows, which would belong to no turn."""
    pieces = CLOSED.split(said)
    if any(piece.strip() for piece in pieces[1:]):
        raise DataError("hold text between two turns of a transcript")
    return pieces[0].strip()


def _is_one(text: str, dialect: str) -> bool:
    """Whether a text is a conversation in this dialect from its beginning."""
    form, text = DIALECTS[dialect], text[OPENING.match(text).end() :]
    first = form.turn.search(text)
    if first is None:
        return False
    lead = text[: first.start()].strip()
    if lead and (not form.leads or _role(first[1]) == "assistant"):
        return False
    if not form.both:
        return not lead or _role(first[1]) == "user"
    others = [_role(turn[1]) for turn in form.turn.finditer(text, first.end())]
    if dialect == "human":
        return first[1] == "Human" and "assistant" in others
    opens = _role(first[1]) in ("user", "system") and "assistant" in others
    # A play or an interview has speakers as well: only a text that waits for the answer is certain, or one under headings.
    return opens and (dialect == "hashes" or _waits(text, form))


def _waits(text: str, form: Dialect) -> bool:
    *_, last = form.turn.finditer(text)
    return _role(last[1]) == "assistant" and not text[last.end() :].strip()


def _role(speaker: str) -> str:
    return INST.get(speaker) or SPOKEN.get(speaker.lower(), "")
