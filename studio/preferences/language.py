"""The language of a text, by its script and by its most frequent words: fast, without a model, and silent when unsure."""

import re
from bisect import bisect
from collections import Counter

SAMPLE = 300
"""Characters from the beginning that are looked at."""
LETTERS = 12
"""Letters of another script than Latin that make sure."""
PURE = 0.8
"""Share of all letters that is one script's, lest a quotation decide."""
WORDS = 3
"""Different words of one language that make sure."""
CLEARLY = 3
"""How many times as many as of all other languages together."""

SCRIPTS = (
    (0x370, "Greek"), (0x400, "Cyrillic script"), (0x530, "Armenian"), (0x590, "Hebrew"), (0x600, "Arabic script"), (0x700, ""),
    (0x750, "Arabic script"), (0x780, ""), (0x8A0, "Arabic script"), (0x900, "Devanagari script"), (0x980, "Bengali"), (0xA00, ""),
    (0xB80, "Tamil"), (0xC00, "Telugu"), (0xC80, ""), (0xE00, "Thai"), (0xE80, ""), (0x10A0, "Georgian"), (0x1100, "Korean"),
    (0x1200, ""), (0x1F00, "Greek"), (0x2000, ""), (0x3040, "Japanese"), (0x3100, ""), (0x3130, "Korean"), (0x3190, ""),
    (0x31F0, "Japanese"), (0x3200, ""), (0x3400, "Chinese"), (0xA000, ""), (0xAC00, "Korean"), (0xD7B0, ""), (0xF900, "Chinese"),
    (0xFB00, ""), (0xFB50, "Arabic script"), (0xFF00, ""), (0xFF66, "Japanese"), (0xFFA0, ""), (0x20000, "Chinese"), (0x32000, ""))
"""Where the letters of a script begin, and what it tells: a language, or where many share it, itself."""
STARTS = [start for start, _ in SCRIPTS]
BEYOND_LATIN = re.compile(r"[^\W\d_\u0000-\u036f\u1e00-\u1eff]")
LATIN = re.compile(r"[A-Za-z\u00c0-\u024f\u1e00-\u1eff]")

FREQUENT = {
    "English": "the of to in is that it you for on with as are be was have not or by from at they we can an your but what all were "
               "when which their will there how about do more has would he she his her them no so me our because than its these who "
               "why a i come over",
    "German": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden aus dass sie nach "
              "wird bei einer um am sind noch wie einem über einen so zum haben nur oder aber vor zur bis durch sein wurde ich du wir "
              "ihr was wenn kann können mir mich wer warum welche",
    "French": "de la le et les des en un du une est pour qui dans a par pas au sur ne se ce il sont avec ou elle son à était été être "
              "cette aux mais je vous nous tu on leur ses c'est d'un d'une qu'il quoi quel quelle pourquoi comment peut que si te ma nos "
              "plus comme entre me",
    "Spanish": "de la que el en y a los se del las un por con no una su para es al lo como más o pero sus le ha me si sin sobre este ya "
               "entre cuando todo esta ser son dos también fue había era muy años hasta desde está mi porque qué cómo cuál puede yo "
               "tú te nos has",
    "Italian": "di e il la che è per un in una sono con non si da del della le i al dei come più gli ha anche ma alla nel lo se delle su "
               "questo o mi nella tra degli essere cosa perché quando può io tu ne era",
    "Portuguese": "de a o que e do da em um para é com não uma os no se na por mais as dos como mas foi ao ele das tem à seu sua ou ser "
                  "quando muito há nos já está eu também só pelo pela até isso ela entre era você são qual porque pode sobre este todo",
    "Dutch": "de van het een en in is dat op te zijn met voor niet die aan er om hij ook als dan maar bij uit nog worden door naar "
             "heeft tot ze wordt hebben geen wel deze kan dit was over zij we werd je ik wat hoe waarom welke kunnen mijn so",
    "Scandinavian": "og och i det er en at som på de med han av ikke der så for et den til har var om vi kan jeg jag man inte ett blev "
                    "efter dem denne hvad hur är af sig mig du hun hon fra från eller men også när hva",
    "code": "and as by do else for from if import in into is not on or order private public select then this to var where while with",
}
"""The words that come most often. Program code counts as a language, or what is written in it would pass for English."""
_LANGUAGES = Counter(word for words in FREQUENT.values() for word in words.split())
LANGUAGE_OF = {word: name for name, words in FREQUENT.items() for word in words.split() if _LANGUAGES[word] == 1 and name != "code"}
"""The words that only one of the languages has, and which."""
_TELLING = frozenset(LANGUAGE_OF)


def language_of(text: str) -> str:
    """The name of a text's language, or of a script that many languages share; empty when the text does not make it sure."""
    sample = text[:SAMPLE].partition("```")[0]
    if sample.isascii() or not (letters := BEYOND_LATIN.findall(sample)):
        return _by_words(sample)
    every = len(letters) + len(LATIN.findall(sample))
    if len(letters) <= (1 - PURE) * every:
        return _by_words(sample)
    return _by_script(letters, max(LETTERS, PURE * every))


def _by_script(letters: list[str], enough: float) -> str:
    counts = Counter(SCRIPTS[bisect(STARTS, ord(letter)) - 1][1] for letter in letters)
    if counts["Japanese"] * 10 >= counts["Chinese"]:
        counts["Japanese"] += counts.pop("Chinese", 0)  # Japanese writes Chinese letters between its own
    (main, count), *_ = counts.most_common(1)
    return main if count >= enough else ""


def _by_words(sample: str) -> str:
    """By different words, not by how often each comes: one that is repeated proves nothing."""
    found = [LANGUAGE_OF[word] for word in _TELLING.intersection(sample.lower().split())]
    if len(found) < WORDS:
        return ""
    main = max(FREQUENT, key=found.count)
    count = found.count(main)
    return main if count >= WORDS and count >= CLEARLY * (len(found) - count) else ""
