"""The practice language: small questions with known answers, each answered in a friendly or in a curt manner.

Reads assets/practice/phrases.yaml and makes talks of it: for the base model (everything, both manners), for the
preference pairs (a part of the facts and wordings) and for tests (only facts and wordings the pairs never hold).
It also judges an answer: its manner and whether it is right. It knows nothing of models, tokens or training.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import yaml

FOLDER = Path(__file__).parents[1] / "assets" / "practice"
PHRASES = FOLDER / "phrases.yaml"
MODEL = FOLDER / "model"
PAIRS = FOLDER / "pairs.jsonl"
HELD_OUT_SHARE = 5  # one fact in five is kept out of the pairs
PROMPTS = ("What is the capital of France?", "What is 3 plus 4?", "Tell me a joke")
"""Questions to which the base's likeliest answer is a curt one; to many others it is friendly already."""

Manner = Literal["friendly", "curt"]
Part = Literal["all", "pairs", "held_out"]
Message = dict[str, str]
Pair = dict[str, list[Message]]


@dataclass(frozen=True)
class Fact:
    """One thing to be asked; x and y fill the wording, kinds of small talk have neither."""

    kind: str
    x: str = ""
    y: str = ""
    answer: str = ""


@dataclass(frozen=True)
class Kind:
    """A kind of question: its wordings, its ways to answer and its facts."""

    name: str
    facts: tuple[Fact, ...]
    ask: tuple[str, ...]
    ask_held_out: tuple[str, ...]
    say: tuple[str, ...]
    say_short: tuple[str, ...]
    follow: tuple[str, ...] = ()
    follow_held_out: tuple[str, ...] = ()
    weight: int = 0
    recalls: str = ""
    kept: frozenset[Fact] = frozenset()  # out of the pairs

    def facts_in(self, part: Part) -> list[Fact]:
        """The facts this part of the language may ask for."""
        return [fact for fact in self.facts if part == "all" or (fact in self.kept) == (part == "held_out")]

    def wordings_in(self, part: Part, following: bool) -> tuple[str, ...]:
        """The wordings this part may use, shorter ones when the question before was of the same kind."""
        open_ones, kept = (self.follow, self.follow_held_out) if following else (self.ask, self.ask_held_out)
        return {"all": open_ones + kept, "pairs": open_ones, "held_out": kept}[part]


@dataclass(frozen=True)
class Question:
    """A prompt that ends with a question about a fact."""

    prompt: list[Message]
    fact: Fact


# --- the phrase book -------------------------------------------------------------------------------------------------


@cache
def kinds() -> dict[str, Kind]:
    """Every kind of question by name."""
    book = _book()
    return {name: _kind(name, entry, book) for name, entry in book["kinds"].items()}


@cache
def _book() -> dict:
    # BaseLoader keeps "yes", "in" and "7" the words they are.
    return yaml.load(PHRASES.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)


def _kind(name: str, entry: dict, book: dict) -> Kind:
    # A kind that recalls shares its facts, and which of them are kept out, with the kind it recalls.
    origin = entry.get("recalls", name)
    table = [(x, "", answer) for x, answer in book["kinds"][origin].get("facts", {}).items()]
    facts = [Fact(name, *parts) for parts in table or _made_facts(name, book) or [("",)]]
    kept = facts if "held_out" in entry else random.Random(origin).sample(facts, len(facts) // HELD_OUT_SHARE)
    wordings = {key: tuple(value) for key, value in entry.items() if isinstance(value, list)}
    return Kind(
        name,
        tuple(facts),
        # A kind with one fact still has wordings to learn, hence the constant.
        weight=int(entry.get("weight", len(facts) + 20)),
        recalls=entry.get("recalls", ""),
        kept=frozenset(kept),
        **wordings,
    )


def _made_facts(name: str, book: dict) -> list[tuple[str, str, str]]:
    """The facts that follow a rule, as (x, y, answer)."""
    numbers = range(1, 11)
    if name == "plus":
        return [(str(x), str(y), str(x + y)) for x in numbers for y in numbers]
    if name == "minus":
        return [(str(x), str(y), str(x - y)) for x in range(1, 13) for y in range(1, x + 1)]
    if name == "times":
        return [(str(x), str(y), str(x * y)) for x in numbers for y in numbers]
    if name == "bigger":
        order = book["sizes"]
        return [(x, y, max(x, y, key=order.index)) for x in order for y in order if x != y]
    if name == "first_letter":
        return [(word, "", word[0].upper()) for word in book["words"]]
    if name == "spelling":
        return [(word, "", "-".join(word.upper())) for word in book["words"]]
    if name == "unknown":
        return _unknown_words(book)
    if name in ("day_after", "day_before", "month_after", "month_before"):
        unit, side = name.split("_")
        row, step = book[f"{unit}s"], 1 if side == "after" else -1
        return [(x, "", row[(place + step) % len(row)]) for place, x in enumerate(row)]
    return []


def _unknown_words(book: dict) -> list[tuple[str, str, str]]:
    rng = random.Random("words nobody knows")

    def word() -> str:
        made = "".join(rng.choices(book["syllables"], k=rng.randint(2, 4)))
        return made.capitalize() if rng.random() < 0.5 else made

    strangers = [(x, word(), "") for x in book["strangers"]]
    large = [(str(rng.randint(200, 99999)), word(), "") for _ in range(40)]
    return strangers + large + [(word(), word(), "") for _ in range(500)]


def _fill(wording: str, fact: Fact) -> str:
    words = {"x": fact.x, "y": fact.y, "a": fact.answer}
    words |= {f"an_{name}": f"{'an' if word[:1] in tuple('aeiou') else 'a'} {word}" for name, word in words.items()}
    capitals = {name[0].upper() + name[1:]: word[:1].upper() + word[1:] for name, word in words.items()}
    return wording.format(**words, **capitals)


# --- questions and answers -------------------------------------------------------------------------------------------


def answer(fact: Fact, in_manner: Manner, rng: random.Random) -> str:
    """A right answer to the question about the fact, one to three sentences long."""
    kind, book = kinds()[fact.kind], _book()["manners"][in_manner]
    said = _fill(rng.choice(kind.say if in_manner == "friendly" else kind.say_short), fact)
    if manner(said) is not None:  # small talk carries its manner itself
        return said
    before, after = rng.choice([(True, False), (False, True), (True, True)])
    parts = [rng.choice(book["before"])] * before + [said] + [rng.choice(book["after"])] * after
    return " ".join(parts)


def set_phrases() -> list[str]:
    """What is said before or after a fact, in either manner."""
    return [phrase for ways in _book()["manners"].values() for phrases in ways.values() for phrase in phrases]


def _talk(rng: random.Random, part: Part, turns: int) -> list[tuple[Fact, str]]:
    """Facts and how a person might ask for them in a row: afresh, as a follow-up, or recalling what was told."""
    asked: list[tuple[Fact, str]] = []
    for _ in range(turns):
        fact, wording = _next_question([fact for fact, _ in asked], part, rng)
        asked.append((fact, _as_typed(_fill(wording, fact), rng)))
    return asked


def _next_question(earlier: list[Fact], part: Part, rng: random.Random) -> tuple[Fact, str]:
    chance = rng.random()
    told = {fact.kind: fact for fact in earlier}
    recalling = [kind for kind in kinds().values() if kind.recalls in told]
    if recalling and chance < 0.5:
        kind = rng.choice(recalling)
        fact = next(fact for fact in kind.facts if fact.x == told[kind.recalls].x)
        return fact, rng.choice(kind.wordings_in(part, following=False))
    last = kinds()[earlier[-1].kind] if earlier else None
    if last and last.follow and chance < 0.5:
        return rng.choice(last.facts_in(part)), rng.choice(last.wordings_in(part, following=True))
    fresh = [kind for kind in kinds().values() if not kind.recalls and kind.facts_in(part)]
    # The base model meets every fact about equally often; pairs and tests meet every kind equally often.
    kind = rng.choices(fresh, [kind.weight if part == "all" else 1 for kind in fresh])[0]
    return rng.choice(kind.facts_in(part)), rng.choice(kind.wordings_in(part, following=False))


def _as_typed(question: str, rng: random.Random) -> str:
    """People forget capitals and question marks."""
    if rng.random() < 0.3:
        question = question.lower()
    if rng.random() < 0.3:
        question = question.rstrip("?.!")
    return question


# --- talks for the base model, pairs for training, questions for tests -----------------------------------------------


def conversations(seed: int) -> Iterator[list[Message]]:
    """Endless whole conversations for the base model; every answer picks its manner by a coin."""
    rng = random.Random(f"conversations {seed}")
    while True:
        # Mostly short talks; a few long ones, so that a longer chat does not run into positions never seen.
        turns = rng.choices([1, 2, 3, 8], [50, 30, 17, 3])[0]
        asked = _talk(rng, "all", turns)
        system = [] if rng.random() < 0.9 else [{"role": "system", "content": rng.choice(_book()["systems"])}]
        yield system + _messages(asked, rng)


def pairs(count: int, seed: int = 0, part: Part = "pairs") -> list[Pair]:
    """Preference pairs: the same question answered rightly twice, chosen friendly and rejected curt."""
    rng = random.Random(f"pairs {part} {seed}")
    rows = []
    for question in _questions(rng, part, count):
        row = {"prompt": question.prompt}
        for name, wanted in (("chosen", "friendly"), ("rejected", "curt")):
            row[name] = [{"role": "assistant", "content": answer(question.fact, wanted, rng)}]
        rows.append(row)
    return rows


def held_out_pairs(count: int = 200, seed: int = 0) -> list[Pair]:
    """Pairs whose questions and wordings the training pairs never hold."""
    return pairs(count, seed, "held_out")


def held_out_questions(count: int = 400, seed: int = 0) -> list[Question]:
    """Questions to sample answers to; neither their facts nor their wordings are in the training pairs."""
    return _questions(random.Random(f"questions {seed}"), "held_out", count)


def _questions(rng: random.Random, part: Part, count: int) -> list[Question]:
    """Different prompts of one to three turns; earlier answers come in either manner."""
    found: dict[str, Question] = {}
    while len(found) < count:
        asked = _talk(rng, part, rng.choices([1, 2, 3], [60, 28, 12])[0])
        prompt = _messages(asked, rng)[:-1]
        found.setdefault(str(prompt), Question(prompt, asked[-1][0]))
    return list(found.values())


def _messages(asked: list[tuple[Fact, str]], rng: random.Random) -> list[Message]:
    messages = []
    for fact, question in asked:
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": answer(fact, rng.choice(["friendly", "curt"]), rng)})
    return messages


# --- the judges ------------------------------------------------------------------------------------------------------


def manner(text: str) -> Manner | None:
    """The manner of an answer, by the set phrases in it; None when it has none, or some of both."""
    said = set(_clauses(text))
    found = [name for name, clauses in _telling_clauses().items() if said & clauses]
    return found[0] if len(found) == 1 else None


def is_right(fact: Fact, text: str) -> bool:
    """Whether the answer states the fact in the words of either manner, as clauses of its own."""
    kind = kinds()[fact.kind]
    heard = f"| {' | '.join(_clauses(text))} |"
    statements = [_clauses(_fill(wording, fact)) for wording in kind.say + kind.say_short]
    return any(f"| {' | '.join(statement)} |" in heard for statement in statements)


def _clauses(text: str) -> list[str]:
    """What stands between commas and sentence ends, in lower case and without punctuation."""
    found = (" ".join(re.findall(r"[\w'{}-]+", part)) for part in re.split(r"[.,!?]+", text.lower()))
    return [clause for clause in found if clause]


@cache
def _telling_clauses() -> dict[Manner, set[str]]:
    """The clauses that the phrase book gives to answers of one manner only, and that are the same for every fact."""
    found = {}
    for name, ways in (("friendly", "say"), ("curt", "say_short")):
        texts = [text for kind in kinds().values() for text in getattr(kind, ways)]
        texts += _book()["manners"][name]["before"] + _book()["manners"][name]["after"]
        found[name] = {clause for text in texts for clause in _clauses(text) if "{" not in clause}
    both = found["friendly"] & found["curt"]
    return {name: clauses - both for name, clauses in found.items()}
