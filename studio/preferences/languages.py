"""The checks of languages: answers in another one than their question, and how many languages a set has."""

from collections import Counter

from studio.preferences.checks import ENOUGH, Counting
from studio.preferences.findings import NAMED, Finding, Seen, share
from studio.preferences.language import language_of
from studio.preferences.told import Told

NAMES = (
    "translat traduc traduz tradui überset vertaal vertal перев 翻译 翻譯 翻訳 訳し 번역 ترجم अनुवाद english german french spanish "
    "italian portugu dutch russian ukrainian chinese mandarin japanese korean arabic hindi greek hebrew thai persian urdu turkish "
    "swedish danish norwegian polish englisch deutsch französisch spanisch italienisch niederländisch russisch chinesisch japanisch "
    "anglais allemand français espagnol italien portugais néerlandais russe chinois japonais inglés inglês inglese alemán alemão "
    "tedesco francés francês francese español espanhol spagnolo engels duits frans spaans английск немецк французск испанск русск "
    "китайск 英文 英语 英語 中文 日语 日語 日本語 法语 德语 영어 한국어 الإنجليزية العربية अंग्रेज़ी हिंदी")
"""How questions name languages and translating. Where one does, another language is what was asked for."""
_NAMES = NAMES.split()
FEW = 0.02
"""Share of the pairs from which on a language is worth a word; one answer in fifty may be told wrongly."""


class LanguageMix(Counting):
    """Better answers in another language than their question."""

    name, what = "language-mix", "in another language"

    def concerns(self, told: Told) -> bool:
        answered, asked = told.better.language, language_of(told.pair.prompt[-1]["content"] or "")
        if not answered or not asked or answered == asked:
            return False
        return not any(name in told.question.plain for name in _NAMES)

    def words(self, total: int) -> str:
        return (f"In {share(self.count, total)} the better answer is in another language than the question, which asks for none. "
                "The model will learn to change the language.")


class Languages:
    """In which languages the better answers are, where there are several."""

    name = "languages"

    def __init__(self):
        self.counts: Counter[str] = Counter()
        self._rows: dict[str, list[int]] = {}

    def see(self, seen: Seen) -> bool:
        if language := Told.of(seen).better.language:
            self.counts[language] += 1
            if len(rows := self._rows.setdefault(language, [])) < NAMED:
                rows.append(seen.number)
        return False

    def finding(self, total: int) -> Finding | None:
        told = self.counts.total()
        shares = [(language, count) for language, count in self.counts.most_common() if count >= FEW * told]
        if told < ENOUGH or len(shares) < 2:
            return None
        listed = ", ".join(f"{count / told:.0%} {language}" for language, count in shares)
        others = sum(count for _, count in shares[1:])
        rows = sorted(number for language, _ in shares[1:] for number in self._rows[language])
        words = (f"The better answers are in several languages: {listed}, of those that can be told. "
                 "The model learns to answer in them in this proportion.")
        return Finding(self.name, "hint", others, words, tuple(rows[:NAMED]))
