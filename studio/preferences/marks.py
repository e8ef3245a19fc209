"""The checks for texts that are not what somebody said: a template's marks, words for a missing value, structure, names."""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice

from studio.preferences.answers import is_name
from studio.preferences.checks import ENOUGH, Counting
from studio.preferences.findings import Finding, share
from studio.preferences.structure import OPENS, holds_turns, read_back
from studio.preferences.told import Told

SIDES = ("question", "better answer", "worse answer")
SHOWN = 4
"""Marks or words that a finding names."""


class OnSides(Counting):
    """A check that looks at each of a pair's three texts; it says on which sides it found what."""

    def __init__(self):
        super().__init__()
        self.sides: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()

    def concerns(self, told: Told) -> bool:
        found = {side: list(islice(self.found(told, side), 8)) for side in SIDES}
        for side, marks in found.items():
            self.sides[side] += bool(marks)
            for mark in marks:
                if len(self.seen) < 1000 or mark in self.seen:
                    self.seen[mark] += 1
        return any(found.values())

    def found(self, told: Told, side: str) -> Iterator[str]:
        """What is found on a side, as it is shown."""
        raise NotImplementedError

    def where(self) -> str:
        """The sides with their counts: "the question (4) and the worse answer (2)"."""
        named = [f"the {side} ({count:,})" for side in SIDES if (count := self.sides[side])]
        return " and ".join(filter(None, (", ".join(named[:-1]), named[-1])))

    def what_is_there(self) -> str:
        """What was found, the most frequent first."""
        return ", ".join(f"“{mark[:40]}”" for mark, _ in self.seen.most_common(SHOWN))


def text_of(told: Told, side: str) -> str:
    """What a side says."""
    return {"question": told.question, "better answer": told.better, "worse answer": told.worse}[side].said


# --- marks of a template ----------------------------------------------------------------------------------------------

MARK = re.compile(
    r"<\|[A-Za-z_][\w.:-]{0,40}\|>|<｜[^<>｜\n]{1,40}｜>|<<\/?SYS>>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|TOOL_CALLS|TOOL_RESULTS|AVAILABLE_TOOLS|[gs]MASK)\]"
    r"|</?(?:start|end)_of_(?:turn|text|image|role)>|<(?:bos|eos|pad|unk|sop|eop)>|<extra_id_\d{1,3}>|<\/s>\s*\Z|\A\s*<s>"
    r"|^\#{2,3}[ \t]?(?:Human|Assistant|User|System|Instruction|Response|Input)[ \t]?:", re.MULTILINE)
"""Special tokens and role headings, by their kind: a name between bars, a word in brackets, a heading with a speaker and a colon."""
SIGNS = ("<|", "<｜", "<<", "[/", "[I", "[S", "[T", "[A", "[g", "[s", "_of_", "<b", "<e", "<p", "<u", "<s", "</s", "##")
"""One of these stands in every mark: a look for them is much faster than the pattern."""
CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]{1,200}`", re.DOTALL)
"""What an answer quotes: whoever explains a template shows its marks."""
TAG = re.compile(r"^<(system|user|human|assistant|bot|gpt|model)>:?", re.MULTILINE | re.IGNORECASE)
AWAITS = re.compile(r"(?:\A|\n)[ \t]*((?:Assistant|ASSISTANT|Chatbot|Bot|GPT|AI|助手|アシスタント|어시스턴트)[ \t]?[:：])\s*\Z")
SPEAKS = re.compile(r"\A\s*((?:Assistant|ASSISTANT|Chatbot|Bot|GPT|AI|助手|アシスタント|어시스턴트)[ \t]?[:：])")
GOES_ON = re.compile(r"\n[ \t]*((?:Human|USER|User)[ \t]?:)[^\n]*\n+[ \t]*(?:Assistant|ASSISTANT|AI)[ \t]?:")
PLAYS = re.compile(r"dialog|conversation|script|chat|interview|transcript|scene|play\b|Human:|User:|USER:", re.IGNORECASE)


class Markup(OnSides):
    """Texts that hold a chat template's own marks."""

    name, what = "markup", "with template marks"

    def found(self, told: Told, side: str) -> Iterator[str]:
        text = text_of(told, side)
        bare = CODE.sub(" ", text) if "`" in text else text
        if any(sign in bare for sign in SIGNS):
            yield from (found[0].strip() for found in MARK.finditer(bare))
        if "<" in bare:
            tags = [found[1].lower() for found in TAG.finditer(bare)]
            if len(set(tags)) > 1:
                yield from (f"<{tag}>" for tag in dict.fromkeys(tags))
        speaker = AWAITS.search(text[-40:]) if side == "question" else SPEAKS.match(text[:40])
        if speaker:
            yield speaker[1]
        if side != "question" and "\n" in text and (more := GOES_ON.search(text)) and not PLAYS.search(told.question.said):
            yield more[1]

    def words(self, total: int) -> str:
        return (f"{share(self.count, total)} hold marks of a chat template, such as {self.what_is_there()}: {self.where()}. The studio "
                "writes its own around every turn; these are learned as if they were text. Take them out in the file, or drop these pairs.")


# --- words for nothing ------------------------------------------------------------------------------------------------

MISSING = re.compile(r"\s*(?:nan|nat|null|nil|none|n/a|n\.a\.|#n/a|na|<na>|#null!|#value!|#ref!|#div/0!|#name\?|undefined|\(null\)|<null>"
                     r"|<none>|\(empty\)|\[empty\]|<empty>|-{1,3}|[–—]|\[\]|\{\}|''|\"\"|\[none\]|missing)\s*", re.IGNORECASE)
"""What programs write where there is no value. A word with a full stop is said by somebody: "None." is an answer."""
LONGEST_MISSING = 12
PROGRAMS = re.compile(r"```|\breturns?\b|\bprints?\b|\boutput|\bpython|\bjava|\bsql|\bcode\b|\bvalue|\bfunction|\bselect\b|\bjson"
                      r"|\blist\b|\bvariable|[=(){}\[\];]", re.IGNORECASE)
"""Questions to which such a word may be the right answer."""


class MissingWords(OnSides):
    """Texts that are a word for a missing value."""

    name, what = "missing-words", "with words for nothing"

    def found(self, told: Told, side: str) -> Iterator[str]:
        if side == "question":
            for turn in told.pair.prompt:
                last = turn["content"].rsplit("\n\n", 1)[-1]
                if len(last) <= LONGEST_MISSING and MISSING.fullmatch(last):
                    yield last.strip()
            return
        text = text_of(told, side)
        if len(text) > LONGEST_MISSING or not MISSING.fullmatch(text):
            return
        asked = told.question.said
        word = text.strip().lower()
        if word not in asked.lower() and not PROGRAMS.search(asked):
            yield text.strip()

    def words(self, total: int) -> str:
        return (f"In {share(self.count, total)} a text is only a word that programs write for a missing value, "
                f"{self.what_is_there()}: {self.where()}. The model would learn to say it. Fill these cells in the file, or "
                "drop these pairs.")


# --- structure as text ------------------------------------------------------------------------------------------------


class WrittenTurns(OnSides):
    """Texts that are turns or conversations written as JSON or as Python prints them."""

    name, weight, what = "written-turns", "bad", "with turns written as text"

    def found(self, told: Told, side: str) -> Iterator[str]:
        text = text_of(told, side)
        if OPENS.match(text) and holds_turns(read_back(text)):
            yield text.strip()[:30]

    def words(self, total: int) -> str:
        return (f"In {share(self.count, total)} a text is not what was said but a list of turns written as text, such as "
                f"{self.what_is_there()}: {self.where()}. The model would learn to write brackets and field names. "
                "Most rows are not written so: write these like the others, or drop these pairs.")


class UnaskedJson(Counting):
    """Pairs of which both answers are JSON objects or lists though the question says nothing of it."""

    name, weight, verb, what = "unasked-json", "hint", "", "with JSON"
    MOST = 0.2
    """Share of all pairs from which on it is the file's way of writing rather than an answer or two."""
    ASKS = re.compile(r"json|\{|\[|object|array|dict|list|struct|schema|format|field|key|yaml|api|function|tool|code", re.IGNORECASE)

    def __init__(self):
        super().__init__()
        self.fields: Counter[str] = Counter()

    def concerns(self, told: Told) -> bool:
        if not (OPENS.match(told.better.said) and OPENS.match(told.worse.said)) or self.ASKS.search(told.question.said):
            return False
        both = [read_back(text.said) for text in (told.better, told.worse)]
        if any(found is None for found in both):
            return False
        self.fields.update(name for found in both if isinstance(found, dict) for name in list(found)[:8] if isinstance(name, str))
        return True

    def finding(self, total: int) -> Finding | None:
        return super().finding(total) if self.count >= self.MOST * total else None

    def words(self, total: int) -> str:
        fields = ", ".join(f"“{name[:40]}”" for name, _ in self.fields.most_common(SHOWN))
        named = f" with the fields {fields}" if fields else ""
        return (f"In {share(self.count, total)} both answers are JSON{named}, though the question does not ask for any. If only one "
                "field of it is the answer, write that alone into the file; else the model learns to answer in JSON.")


# --- names and labels -------------------------------------------------------------------------------------------------


class NamesForAnswers(Counting):
    """Pairs of which both answers are names, addresses or identities, as they stand in columns beside the answers."""

    name, weight, verb = "names-for-answers", "bad", ""
    MOST = 0.5
    """Share of all pairs from which on the columns are likely the wrong ones."""

    def __init__(self):
        super().__init__()
        self.such: Counter[str] = Counter()

    def concerns(self, told: Told) -> bool:
        both = [text.said.strip() for text in (told.better, told.worse)]
        if not all(map(is_name, both)):
            return False
        if len(self.such) < 100:
            self.such.update(both)
        return True

    def words(self, total: int) -> str:
        such = " and ".join(f"“{text[:40]}”" for text, _ in self.such.most_common(2))
        return (f"In {share(self.count, total)} both answers are names, addresses or numbers of something, such as {such}, and not what "
                "somebody said. The columns are likely the wrong ones: name those with the answers under Data.")

    def finding(self, total: int) -> Finding | None:
        return super().finding(total) if self.count >= self.MOST * total else None


class FewAnswers:
    """Sets in which all answers are the same few short texts, as labels are."""

    name = "few-answers"
    LONGEST, SHARE = 40, 0.05

    def __init__(self):
        self.texts: Counter[str] = Counter()
        self.rows: list[int] = []
        self.is_one = True

    def see(self, seen) -> bool:
        if self.is_one:
            told = Told.of(seen)
            for text in (told.better, told.worse):
                self.texts[text.plain[: self.LONGEST + 1]] += 1
            self.is_one = len(self.texts) <= 1000 and all(len(text.plain) <= self.LONGEST for text in (told.better, told.worse))
        return False

    def finding(self, total: int) -> Finding | None:
        if not self.is_one or total < ENOUGH or len(self.texts) > max(2, self.SHARE * total):
            return None
        such = ", ".join(f"“{text}”" for text, _ in self.texts.most_common(SHOWN))
        words = (f"All {total:,} pairs have the same {len(self.texts):,} short texts as answers, such as {such}. If these are labels or "
                 "the names of models, name the columns with the answers themselves under Data.")
        return Finding(self.name, "warn", total, words, ())
