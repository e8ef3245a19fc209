"""Which encoding a text has that is not Unicode: every candidate's reading is judged by how much of it a language explains.

A reading is strange as far as its special characters belong to no one language, its capitals follow small letters, or it
has signs that nobody types. Where two different readings are about as little strange, nothing is certain.
"""

import re
import unicodedata
from collections import Counter
from functools import cache
from typing import NamedTuple

from charset_normalizer.constant import FREQUENCIES

from studio.preferences.language import language_of

NAMES = {"cp1252": "Windows-1252, Western European", "cp1250": "Windows-1250, Central European",
         "iso8859_2": "ISO 8859-2, Central European",
         "cp1254": "Windows-1254, Turkish", "cp1257": "Windows-1257, Baltic", "mac_roman": "Mac Roman", "cp850": "DOS code page 850",
         "cp852": "DOS code page 852", "cp1251": "Windows-1251, Cyrillic", "koi8_u": "KOI8-R, Cyrillic",
         "cp866": "DOS code page 866, Cyrillic",
         "iso8859_5": "ISO 8859-5, Cyrillic", "cp1253": "Windows-1253, Greek", "iso8859_7": "ISO 8859-7, Greek",
         "cp1255": "Windows-1255, Hebrew", "cp1256": "Windows-1256, Arabic", "cp874": "Windows-874, Thai", "gb18030": "GB 18030, Chinese",
         "big5hkscs": "Big5, Chinese", "cp932": "Shift JIS, Japanese", "euc_jp": "EUC-JP, Japanese", "cp949": "EUC-KR, Korean"}
"""Candidates by Python's name for them, the usual ones first."""
WIDE = ("gb18030", "big5hkscs", "cp932", "euc_jp", "cp949")
SPECIAL = {
    "French": "àâæçéèêëîïôœùûüÿ", "German": "äöüßé", "Spanish": "áéíóúüñ", "Portuguese": "áâãàçéêíóôõú", "Italian": "àèéìíòóù",
    "Scandinavian": "åäöæøé", "Icelandic": "áéíóúýðþæö", "Dutch": "ëïéèöüá", "Polish": "ąćęłńóśźż", "Czech": "áčďéěíňóřšťúůýž",
    "Slovak": "áäčďéíĺľňóôŕšťúýž", "Hungarian": "áéíóöőúüű", "Croatian": "čćđšž", "Romanian": "ăâîșțşţ", "Turkish": "çğıöşüâî",
    "Lithuanian": "ąčęėįšųūž", "Latvian": "āčēģīķļņšūž", "Estonian": "äöõüšž"}
"""Letters beyond ASCII, by language. A text may be in two."""
OPENING, INSIDE = "“„‘‚‹«»”’›¿¡—–…§№", "’‘–—·…”"
"""Signs that may stand before a word, and inside of one."""
PLAIN_SIGNS = set("“”„‘’‚–—…•·«»‹›€£§©®™°²³½¼¾±×÷µ№¶†‰¿¡ªº\u00a0")
ORDER = {
    "CYRILLIC": ("оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъё", "оаинітврескдлмуяьпзбгчйхїжцшюєщфґ", "аоеитнрсвлкдмпъзгуябчщцйжшхюфь",
                 "аоиентрсјвукдпмлзгбчшцжћњљђфхџ"),
    "GREEK": ("αοιετσνηυρπκμλςωίόάέήύώδγχθβφξζψϊϋΐΰ",), "HEBREW": ("יוהלארתבשמנםדקחעפטגצכןסזךףץ",),
    "ARABIC": ("ايلنمرتبةعدسفحهكقأجشطصخىإءذثظغضآئؤ", "ایرندمهتوسبشکزفگلخقعجحپصطچضذآئثغظژ"),
    "THAI": ("านรกอเงมยวลดทส่ตะปบคหแจพช้ขใไโผซถ็ีิัุูื์ำญณธศษภฟฐ",)}
"""The letters of each script's languages, the most frequent first."""
TOP, USUAL = 13, 0.6
"""Letters that make up the usual share of any text in these scripts."""
HANGUL = frozenset("이다는에의을하고가지를은서로한기니사리해인도어자시나대수있라요것과정스여구일보부들만그전면제게아습상세장주안소동"
                   "무할우원생국위조공람때문마모실간개치비내말성방오미물왜엇떻먼저까입질답녕계학교년월음없된되않같많좋책집중신유적화"
                   "러야행")
SPOKEN = 4000
"""Characters by which the language is told."""
MARGIN, LIKELY = 0.12, 0.25
"""How much stranger the next reading must be, and how strange the best may be, to be certain."""


class Candidate(NamedTuple):
    """A reading: its encoding, how strange it is from 0 to 1, and a piece of the text as it reads."""

    encoding: str
    strange: float
    sample: str
    special: int
    """Special characters in the text: the fewer, the less is certain."""


def readings(sample: bytes) -> list[Candidate]:
    """The different readings of lines with special characters, the least strange first. Those that read the same are one."""
    found: dict[str, Candidate] = {}
    for encoding in NAMES:
        try:
            text = sample.decode(encoding)
        except UnicodeDecodeError:
            continue
        if text not in found:
            strange = _strangeness(text, language_of(text[:SPOKEN]), encoding in WIDE)
            kana = sum(map(text.count, "のはをたでにすい"))
            if encoding in ("gb18030", "big5hkscs", "cp949") and kana * 10 > sum(map(str.isascii, text)):
                strange += 0.2  # their kana are for quotations
            found[text] = Candidate(encoding, strange, _piece(text), sum(letter > "\x7f" for letter in text))
    return sorted(found.values(), key=lambda one: one.strange)


def is_certain(found: list[Candidate]) -> bool:
    """Whether the first of the readings is the right one for certain."""
    if not found:
        return False
    margin = MARGIN + 1 / found[0].special
    best, gap = found[0].strange, (found[1].strange if len(found) > 1 else 1.0) - found[0].strange
    return (best <= LIKELY and gap >= margin) or (best <= 2 * LIKELY and gap >= 3 * margin)


def likely(found: list[Candidate]) -> list[Candidate]:
    """The readings that a person should choose from."""
    return [one for one in found if one.strange <= max(2 * LIKELY, found[0].strange + MARGIN)][:4]


def _piece(text: str) -> str:
    """About forty characters around the first special ones."""
    at = next((place for place, letter in enumerate(text) if letter > "\x7f"), 0)
    start = max(0, text.rfind(" ", 0, max(0, at - 10)) + 1)
    return " ".join("".join(letter if letter.isprintable() else "�" for letter in text[start : start + 48].replace("\n", " ")).split())


def _strangeness(text: str, spoken: str, is_wide: bool) -> float:
    special = [letter for letter in text if letter > "\x7f"]
    if not special:
        return 1.0
    wrong = sum(map(_strange_in, re.split(r"\s+", text))) + sum(letter not in PLAIN_SIGNS and unicodedata.category(letter)[0] in "CS"
                                                                for letter in special)
    wrong += abs(text.count("‹") - text.count("›")) + abs(text.count("«") - text.count("»"))
    return min(1.0, (wrong + _unexplained(special, spoken, is_wide)) / len(special))


def _strange_in(word: str) -> float:
    """How much in a word nobody writes: two scripts, capitals after small letters, signs between letters or before them."""
    if word.isascii():
        return 0.0
    wrong, kinds = 0.0, list(map(_kind, word))
    for at, (letter, kind) in enumerate(zip(word, kinds, strict=True)):
        before, after = kinds[at - 1] if at else "", kinds[at + 1] if at + 1 < len(word) else ""
        if kind == "sign" and letter > "\x7f" and after not in ("", "sign", "0"):
            wrong += letter not in (INSIDE if before not in ("", "sign", "0") else OPENING)
        elif kind not in ("sign", "0") and before not in ("", "sign", "0", kind):
            wrong += not {kind, before} <= {"HIRAGANA", "KATAKANA", "CJK"}
    letters = [letter for letter in word if letter.isalpha()]
    special = [letter for letter in letters if letter > "\x7f"]
    rises = sum(one.islower() and other.isupper() for one, other in zip(word, word[1:], strict=False) if other > "\x7f" or one > "\x7f")
    wrong += rises if rises < 2 and sum(map(str.isupper, letters)) < 3 else 0.6 * len(special)
    latin = [letter for letter in special if _kind(letter) == "LATIN"]
    wrong += 0.8 * len(latin) if len(letters) > 3 and len(latin) > 0.75 * len(letters) else 0
    return wrong + (len(letters) == 1 and bool(special) and letters[0].isupper() and letters[0] not in "ÀÉАИОУЯВСК")


@cache
def _kind(letter: str) -> str:
    if letter.isdigit() and letter.isascii():
        return "0"
    if letter.isalpha() or unicodedata.category(letter) in ("Mn", "Mc"):
        return unicodedata.name(letter, "?").split()[0].split("-")[0]
    return "sign"


def _unexplained(special: list[str], spoken: str, is_wide: bool) -> float:
    """How many of the special letters are unusual in the language that explains most of them."""
    letters = Counter(letter for letter in special if _kind(letter) not in ("sign", "0"))
    scripts: Counter[str] = Counter()
    for letter, count in letters.items():
        scripts[_kind(letter)] += count
    if not scripts:
        return 0.0
    cased = [letter for letter in special if letter.isupper() or letter.islower()]
    total, (script, most) = sum(letters.values()), scripts.most_common(1)[0]
    lower: Counter[str] = Counter()
    for letter, count in letters.items():
        lower[letter.lower()[0]] += count
    if script == "LATIN" and not is_wide:
        return _latin(lower, spoken, total)
    if script in ("CJK", "HIRAGANA", "KATAKANA", "HANGUL"):
        return _wide(letters, scripts, total, is_wide)
    if script not in ORDER:
        return total
    shares = [(sum(lower[letter] for letter in order[:TOP]), sum(lower[letter] for letter in set(order))) for order in ORDER[script]]
    short = min(total - known + 1.5 * max(0.0, USUAL * total - frequent) for frequent, known in shares)
    short += 0.25 * total if len(cased) > 8 and sum(map(str.isupper, cased)) > 0.7 * len(cased) else 0
    return total - most + short + _misplaced(special, script, total)


def _latin(lower: Counter[str], spoken: str, total: int) -> float:
    """How many letters are not those of the language that the plain words are in; else of no one, or, at a small price, of no two."""
    if spoken in SPECIAL:
        return float(sum(count for letter, count in lower.items() if letter not in SPECIAL[spoken] + "éèàüö"))
    by_language = {name: sum(count for letter, count in lower.items() if letter in SPECIAL[name]) for name in SPECIAL}
    alone = total - max(by_language.values())
    best = sorted(by_language, key=by_language.__getitem__, reverse=True)[:6]
    both = min(total - sum(count for letter, count in lower.items() if letter in SPECIAL[one] or letter in SPECIAL[other])
               for one in best for other in best)
    return min(alone, both + 0.15 * total)


def _misplaced(special: list[str], script: str, total: int) -> float:
    """Letters that stand where their script never has them: how another alphabet shows in one of as many letters."""
    text = "".join(special)
    if script == "GREEK":
        accents = sum(letter in "άέήίόύώϊϋΐΰΆΈΉΊΌΎΏ" for letter in text)
        return 0.4 * total if accents < 0.05 * total else 0.0
    if script == "HEBREW":
        return 0.5 * sum(unicodedata.category(letter) == "Mn" for letter in text) + (0 if re.search("[םןךףץ]", text) else 0.3 * total)
    if script == "ARABIC":
        return float(sum(unicodedata.category(letter) == "Mn" for letter in text)) + (0 if "ا" in text and "ل" in text else 0.4 * total)
    if script == "THAI":
        return 2.0 * len(re.findall(r"[ัิีึืฺุู็่้๊๋์ํ]{3,}|[^ก-ฮัิีึืุู][่้๊๋็]|[ะาำ][ะาำ]|[เแโใไ](?![ก-ฮ])", text))
    return 0.0


@cache
def _common() -> dict[str, frozenset[str]]:
    """The characters that are frequent in each of the wide languages."""
    more = {
        "Chinese": "请问答题什为因此与及其它将把被让给向从到在关系统回解释说明使用方法程序数据信息公司工作学习生活时间地世界国家城市"
                   "人们朋友老师天空蓝色红绿白黑大小多少好坏高低长短新旧早晚春夏秋冬水火土木金日月年星期今昨这那哪谁怎样如何吗呢吧啊"
                   "很非常最更比较太只还再又已经正能够可以应该需要想喜欢爱吃喝睡走跑看听读写买卖开进出上下左右前后里外内中散射瑞利你"
                   "句话第二三四五六七八九十百千万",
        "Traditional": "的一是不了在人有我他這個們中來上大為和國地到以說時要就出會可也你對生能而子那得於著下自之年過發後作裡用道行所然家"
                       "種事成方多經麼去法學如都同現當沒動面起看定天分還進好小部其些主樣理心她本前開但因只從想實請問答題什此與將把被讓給"
                       "向關係系統回解釋明使程式資料訊公司工習活間世界城市朋友老師空藍色紅綠白黑散射瑞利第二三四五六七八九十",
        "Japanese": "質問答回説明使用方法世界今日何時間人気天空青赤白黒色光散乱理由私彼女僕君行来食飲見聞読書買売好悪新古早遅春夏秋冬"
                    "水火木金土曜国語英文字会社仕事学校生活教育電車駅道家族友達先子供大小高低長短多少上下左右前後中外内東西南北京都一"
                    "二三四五六七八九十百千万円年月分秒第的性化者物言葉考思知出入開始終持立作成同違可能必要場合題"}
    usual = {name: "".join(FREQUENCIES[name]) for name in ("Chinese", "Japanese", "Japanese—", "Japanese——")}
    return {"Chinese": frozenset(usual["Chinese"] + more["Chinese"]), "Traditional": frozenset(more["Traditional"]),
            "Japanese": frozenset("".join(list(usual.values())[1:]) + more["Japanese"])}


def _wide(letters: Counter[str], scripts: Counter[str], total: int, is_wide: bool) -> float:
    """How much of a text in a wide encoding is neither frequent characters nor the script of its language."""
    kana, hangul, han = scripts["HIRAGANA"] + scripts["KATAKANA"], scripts["HANGUL"], scripts["CJK"]
    others = total - kana - hangul - han + (0 if is_wide else total)
    if hangul > 0.5 * total:
        common = sum(count for letter, count in letters.items() if letter in HANGUL)
        return others + kana + 0.5 * han + 1.5 * max(0.0, 0.5 * hangul - common)
    known = {name: sum(count for letter, count in letters.items() if letter in usual) for name, usual in _common().items()}
    if kana > 0.2 * total:
        return others + hangul + 1.5 * max(0.0, 0.5 * han - known["Japanese"])
    return others + hangul + kana + 1.5 * max(0.0, 0.5 * han - max(known["Chinese"], known["Traditional"]))
