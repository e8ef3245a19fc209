"""The checks of single pairs and of repeats: what each looks for, what it says, what it would do."""

import re

from studio.preferences.findings import NAMED, Finding, Seen, Weight, share
from studio.preferences.hashes import Hashes
from studio.preferences.pairs import Pair
from studio.preferences.told import Text, Told, hash_of

ENOUGH = 50
"""Pairs below which a share says little, and a model learns little."""
CLEAR = 3.0
"""Standard deviations from an even split that are taken for evidence."""


def question_key(pair: Pair) -> bytes:
    """Eight bytes that stand for a pair's question, letter case and white space aside."""
    return Text(pair.prompt).key


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
        if not self.concerns(Told.of(seen)):
            return False
        self.count += 1
        if len(self.rows) < NAMED:
            self.rows.append(seen.number)
        return True

    def concerns(self, told: Told) -> bool:
        """Whether the pair is one of those that are looked for."""
        raise NotImplementedError

    def words(self, total: int) -> str:
        """What it is and what it does to the model."""
        raise NotImplementedError

    def finding(self, total: int) -> Finding | None:
        if self.count < self.least:
            return None
        edit = f"{self.verb} {self.name}" if self.verb else ""
        what = self.what.removesuffix("s") if self.count == 1 and not self.what.startswith("with") else self.what
        button = f"{self.verb.capitalize()} {self.count:,} {what}" if self.verb else ""
        return Finding(self.name, self.weight, self.count, self.words(total), tuple(self.rows), edit, button)


# --- repeats ----------------------------------------------------------------------------------------------------------


class Duplicates(Counting):
    """The same question with the same two answers, once more."""

    name, what = "duplicates", "repeats"

    def __init__(self):
        super().__init__()
        self._known = Hashes()

    def concerns(self, told: Told) -> bool:
        return self._known.add(told.hash)

    def words(self, total: int) -> str:
        return f"{share(self.count, total)} repeat an earlier one. What stands twice weighs twice, and may be learned by heart."


class Contradictions(Counting):
    """The same question with better and worse exchanged, as another pair has them."""

    name, weight, what = "contradictions", "bad", "contradictions"

    def __init__(self):
        super().__init__()
        self._known = Hashes()

    def concerns(self, told: Told) -> bool:
        self._known.add(told.hash)
        return hash_of(told.question, told.worse, told.better) in self._known

    def words(self, total: int) -> str:
        return (f"{share(self.count, total)} say the opposite of an earlier one: there the better answer is the worse one here. "
                "They cancel out.")


class RepeatedQuestions(Counting):
    """The same question as an earlier pair's, with other answers."""

    name, weight, verb = "repeated-questions", "hint", ""
    MANY = 0.2
    """Share of all pairs from which on it is worth a word."""

    def __init__(self):
        super().__init__()
        self._known = Hashes()

    def concerns(self, told: Told) -> bool:
        asked = self._known.add(hash_of(told.question))
        return not self._known.add(told.hash) and asked

    def words(self, total: int) -> str:
        return (f"{share(self.count, total)} ask what an earlier one asks, with other answers. The model meets these questions more "
                "often than the others, so that they weigh more in what it learns.")

    def finding(self, total: int) -> Finding | None:
        return super().finding(total) if total >= ENOUGH and self.count > self.MANY * total else None


class Leaks(Counting):
    """Held-out pairs whose question is among those that are trained on."""

    name, what = "leaks", "leaks"

    def __init__(self):
        super().__init__()
        self._trained = Hashes()

    def concerns(self, told: Told) -> bool:
        question = hash_of(told.question)
        if not told.held_out:
            self._trained.add(question)
            return False
        return question in self._trained

    def words(self, total: int) -> str:
        return (f"{self.count:,} of {total:,} held-out pairs ask what a training pair asks. "
                "The model has seen these questions, so that measuring on them flatters it.")


# --- answers ----------------------------------------------------------------------------------------------------------

REFUSAL = re.compile(
    r"\W*((i(['’]m| am) (very |so |really )?sorry|sorry|i apologi[sz]e|(my )?apologies),? "
    r"(but|i (can|cannot|won)|as an|that (goes|is) against)"
    r"|i(['’]m| am) (afraid i (can|cannot|won)|unable to|not able to|not comfortable)|i (don['’]t|do not) feel comfortable"
    r"|(unfortunately,? )?i (cannot|can['’]t|can not|won['’]t|will not) "
    r"(help|assist|provide|answer|do|create|write|give|generate|discuss|comply|fulfil|engage)"
    r"|i must (respectfully |politely )?(decline|refuse)|as an ai\b|as a (large )?language model"
    r"|(es )?tut mir leid,? (aber|ich kann)|je suis désolé,? (mais|je ne)|lo siento,? (pero|no puedo)|mi dispiace,? (ma|non posso))",
    re.IGNORECASE)
"""How refusals begin; to be sorry for somebody is none."""


class Refusals(Counting):
    """Better answers that refuse."""

    name, what = "refusals", "refusals"

    def concerns(self, told: Told) -> bool:
        return REFUSAL.match(told.better.said) is not None

    def words(self, total: int) -> str:
        return f"In {share(self.count, total)} the better answer refuses or apologises. The model will learn to refuse such questions."


class TinyDifferences(Counting):
    """Answers that differ in nothing but case, white space or punctuation."""

    name, weight, what = "tiny-differences", "hint", "hardly different"
    GLANCE = 24
    """Characters in which most answers differ already."""

    def concerns(self, told: Told) -> bool:
        better, worse = told.better.plain, told.worse.plain
        begins = _letters(better[: self.GLANCE]), _letters(worse[: self.GLANCE])
        common = min(map(len, begins))
        if begins[0][:common] != begins[1][:common]:
            return False
        return (_letters(better) or told.better.said) == (_letters(worse) or told.worse.said)

    def words(self, total: int) -> str:
        return f"In {share(self.count, total)} the answers differ in letter case, white space or punctuation only. They teach little else."


def _letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", text)


SECRETS = {"e-mail address": re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){0,4}\.[a-z]{2,24}\b", re.IGNORECASE),
           "access key": re.compile(r"\b(hf_[A-Za-z0-9]{30,}|sk-[A-Za-z0-9_-]{20,}|AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,}"
                                    r"|xox[bp]-[\w-]{20,})"),
           "private key": re.compile(r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----")}
SECRET_SIGNS = ("@", "_", "sk-", "AKIA", "xox", "-----BEGIN")
"""One of these stands in every secret."""


class Secrets(Counting):
    """Texts that hold e-mail addresses or keys. What they are is never said."""

    name, weight, what = "secrets", "hint", "with private data"

    def __init__(self):
        super().__init__()
        self.kinds: dict[str, int] = {}

    def concerns(self, told: Told) -> bool:
        text = told.everything
        if not any(sign in text for sign in SECRET_SIGNS):
            return False
        kinds = [kind for kind, pattern in SECRETS.items() if pattern.search(text)]
        for kind in kinds:
            self.kinds[kind] = self.kinds.get(kind, 0) + 1
        return bool(kinds)

    def words(self, total: int) -> str:
        listed = ", ".join(f"{count:,} with a{'n' * (kind[0] in 'ae')} {kind}" for kind, count in self.kinds.items())
        return f"{share(self.count, total)} hold what may be private: {listed}. A model can repeat it word for word."


INVISIBLE = re.compile("[\u00ad\u200b\u202a-\u202e\u2066-\u2069]")
"""Soft hyphens, zero-width spaces and what turns the direction of writing. Joiners belong to scripts and to emoji."""


class LookAlikes(Counting):
    """Answers with characters that nobody sees: to a model they are others than those they look like."""

    name, weight, what = "invisible-characters", "hint", "with invisible characters"

    def concerns(self, told: Told) -> bool:
        return any(not text.isascii() and INVISIBLE.search(text) for text in (told.better.said, told.worse.said))

    def words(self, total: int) -> str:
        return (f"{share(self.count, total)} have answers with characters that are not seen: zero-width spaces, soft hyphens or marks that "
                "turn the direction of writing. The model reads other words than we do, and will learn to write such characters.")


CUT_FROM = 200
"""Characters from which on an answer without an end looks cut; shorter ones are often a word or a number."""


class CutAnswers(Counting):
    """Better answers that stop in the middle of a sentence."""

    name, what, least = "cut-answers", "cut answers", 3

    def concerns(self, told: Told) -> bool:
        text = told.better.said.rstrip()
        # A last line that is short is a list's, a signature's or a poem's, and ends without a stop.
        return len(text) >= CUT_FROM and (text[-1].isalpha() or text[-1] == ",") and "\n" not in text[-60:]

    def words(self, total: int) -> str:
        return f"In {share(self.count, total)} the better answer stops in the middle of a sentence. The model will learn to do the same."
