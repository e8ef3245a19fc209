"""The checks of single pairs and of repeats: what each looks for, what it says, what it would do."""

import re
from hashlib import blake2b

from studio.preferences.findings import NAMED, Finding, Seen, Weight, said, share
from studio.preferences.pairs import Pair


def plain(text: str) -> str:
    """A text for comparing: letter case and white space aside."""
    return " ".join(text.lower().split())


def key(*texts: str) -> bytes:
    """Eight bytes that stand for these texts, compared plainly."""
    return blake2b("\0".join(map(plain, texts)).encode(errors="surrogatepass"), digest_size=8).digest()


def question_key(pair: Pair) -> bytes:
    """Eight bytes that stand for a pair's question."""
    return key(said(pair.prompt))


class Counting:
    """A check that counts pairs and names the first; a kind of it says what concerns a pair, and the words."""

    name = ""
    weight: Weight = "warn"
    verb, what = "drop", "pairs"
    least = 1
    """Fewer are not worth a word."""

    def __init__(self):
        self.count, self.rows = 0, []

    def see(self, seen: Seen) -> bool:
        if not self.concerns(seen):
            return False
        self.count += 1
        if len(self.rows) < NAMED:
            self.rows.append(seen.number)
        return True

    def concerns(self, seen: Seen) -> bool:
        """Whether the pair is one of those that are looked for."""
        raise NotImplementedError

    def words(self, total: int) -> str:
        """What it is and what it does to the model."""
        raise NotImplementedError

    def finding(self, total: int) -> Finding | None:
        if self.count < self.least:
            return None
        edit = f"{self.verb} {self.name}" if self.verb else ""
        button = f"{self.verb.capitalize()} {self.count:,} {self.what}" if self.verb else ""
        return Finding(self.name, self.weight, self.count, self.words(total), tuple(self.rows), edit, button)


# --- repeats ----------------------------------------------------------------------------------------------------------


class Duplicates(Counting):
    """The same question with the same two answers, once more."""

    name, what = "duplicates", "repeats"

    def __init__(self):
        super().__init__()
        self._known: set[bytes] = set()

    def concerns(self, seen: Seen) -> bool:
        found = key(said(seen.pair.prompt), said(seen.pair.chosen), said(seen.pair.rejected))
        known = found in self._known
        self._known.add(found)
        return known

    def words(self, total: int) -> str:
        return f"{share(self.count, total)} repeat an earlier one. What stands twice weighs twice, and may be learned by heart."


class Contradictions(Counting):
    """The same question with better and worse exchanged, as another pair has them."""

    name, weight, what = "contradictions", "bad", "contradictions"

    def __init__(self):
        super().__init__()
        self._known: set[bytes] = set()

    def concerns(self, seen: Seen) -> bool:
        question, better, worse = said(seen.pair.prompt), said(seen.pair.chosen), said(seen.pair.rejected)
        self._known.add(key(question, better, worse))
        return key(question, worse, better) in self._known

    def words(self, total: int) -> str:
        return (f"{share(self.count, total)} say the opposite of an earlier one: there the better answer is the worse one here. "
                "They cancel out.")


class Leaks(Counting):
    """Held-out pairs whose question is among those that are trained on."""

    name, what = "leaks", "leaks"

    def __init__(self):
        super().__init__()
        self._trained: set[bytes] = set()

    def concerns(self, seen: Seen) -> bool:
        question = question_key(seen.pair)
        if not seen.held_out:
            self._trained.add(question)
            return False
        return question in self._trained

    def words(self, total: int) -> str:
        return (f"{self.count:,} of {total:,} held-out pairs ask what a training pair asks. "
                "The model has seen these questions, so that measuring on them flatters it.")


# --- answers ----------------------------------------------------------------------------------------------------------

REFUSAL = re.compile(
    r"\W*((i('m| am) (very |so |really )?sorry|sorry|i apologi[sz]e),? (but|i (can|cannot|won)|as an|that (goes|is) against)"
    r"|i('m| am) (afraid i (can|cannot|won)|unable to|not able to)"
    r"|i (cannot|can't|can not|won't) (help|assist|provide|answer|do|create|write|give)|as an ai\b|as a (large )?language model"
    r"|(es )?tut mir leid,? (aber|ich kann)|je suis désolé,? (mais|je ne)|lo siento,? (pero|no puedo)|mi dispiace,? (ma|non posso))",
    re.IGNORECASE)
"""How refusals begin; to be sorry for somebody is none."""


class Refusals(Counting):
    """Better answers that refuse."""

    name, what = "refusals", "refusals"

    def concerns(self, seen: Seen) -> bool:
        return REFUSAL.match(said(seen.pair.chosen)) is not None

    def words(self, total: int) -> str:
        return f"In {share(self.count, total)} the better answer refuses or apologises. The model will learn to refuse such questions."


class TinyDifferences(Counting):
    """Answers that differ in nothing but case, white space or punctuation."""

    name, weight, what = "tiny-differences", "hint", "hardly different"

    def concerns(self, seen: Seen) -> bool:
        return _letters(said(seen.pair.chosen)) == _letters(said(seen.pair.rejected))

    def words(self, total: int) -> str:
        return f"In {share(self.count, total)} the answers differ in letter case, white space or punctuation only. They teach little else."


def _letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.lower()) or text


MARKUP = re.compile(r"<\|(im_start|im_end|eot_id|start_header_id|endoftext)\|>|\[/?INST\]|</?s>|<(start|end)_of_turn>"
                    r"|^### (Response|Instruction):", re.MULTILINE)


class Markup(Counting):
    """Texts that hold a chat template's own marks."""

    name, what = "markup", "with template marks"

    def concerns(self, seen: Seen) -> bool:
        return any(MARKUP.search(said(turns)) for turns in (seen.pair.prompt, seen.pair.chosen, seen.pair.rejected))

    def words(self, total: int) -> str:
        return (f"{share(self.count, total)} hold marks of a chat template, such as <|im_start|> or [INST]. The studio writes its own "
                "around every turn; these are learned as if they were text.")


SECRETS = {"e-mail address": re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){0,4}\.[a-z]{2,24}\b", re.IGNORECASE),
           "access key": re.compile(r"\b(hf_[A-Za-z0-9]{30,}|sk-[A-Za-z0-9_-]{20,}|AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,}"
                                    r"|xox[bp]-[\w-]{20,})"),
           "private key": re.compile(r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----")}
HINTS = ("@", "hf_", "sk-", "AKIA", "gh", "xox", "-----BEGIN")
"""One of these stands in every secret: a look for them is much faster than the patterns."""


class Secrets(Counting):
    """Texts that hold e-mail addresses or keys. What they are is never said."""

    name, weight, what = "secrets", "hint", "with private data"

    def __init__(self):
        super().__init__()
        self.kinds: dict[str, int] = {}

    def concerns(self, seen: Seen) -> bool:
        every = (said(turns) for turns in (seen.pair.prompt, seen.pair.chosen, seen.pair.rejected))
        texts = [text for text in every if any(hint in text for hint in HINTS)]
        kinds = [kind for kind, pattern in SECRETS.items() if any(pattern.search(text) for text in texts)]
        for kind in kinds:
            self.kinds[kind] = self.kinds.get(kind, 0) + 1
        return bool(kinds)

    def words(self, total: int) -> str:
        listed = ", ".join(f"{count:,} with a{'n' * (kind[0] in 'ae')} {kind}" for kind, count in self.kinds.items())
        return f"{share(self.count, total)} hold what may be private: {listed}. A model can repeat it word for word."


CUT_FROM = 200
"""Characters from which on an answer without an end looks cut; shorter ones are often a word or a number."""


class CutAnswers(Counting):
    """Better answers that stop in the middle of a sentence."""

    name, what, least = "cut-answers", "cut answers", 3

    def concerns(self, seen: Seen) -> bool:
        text = said(seen.pair.chosen).rstrip()
        # A last line that is short is a list's, a signature's or a poem's, and ends without a stop.
        return len(text) >= CUT_FROM and (text[-1].isalpha() or text[-1] == ",") and "\n" not in text[-60:]

    def words(self, total: int) -> str:
        return f"In {share(self.count, total)} the better answer stops in the middle of a sentence. The model will learn to do the same."
