"""What the name of a column says, however it is written and in whichever of the large languages: better, worse, question, vote.

A name is words: "betterAnswer", "Better answer", "better-answer" and "BETTER_ANSWER" are the same. Each word has a meaning
or none; a star stands for any ending, and in scripts that write no spaces words are found inside a name.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

VOCABULARY = {
    "better": """chosen better best preferred prefered accepted good positive pos win wins winning winner won correct desirable
        desired ideal selected liked upvoted approved favored favoured superior besser* beste bester bestes besten gut gute*
        bevorzugt* gewahlt* gewaehlt* ausgewahlt* ausgewaehlt* akzeptiert* angenommen* richtig* positiv* meilleur* bon bonne* prefere
        preferee preferes preferees choisi* accepte* retenu* mejor* bueno* buena* preferid* elegid* aceptad* escogid* seleccionad*
        correcte correctes correcto correcta melhor* boa boas bom preferid* escolhid* aceit* corret* miglior* buon* preferit* scelt*
        accettat* corrett* beter* goed* gekozen* lepsz* najlepsz* dobr* wybran* lepsi vybran* battre bedre basta foredragen valgt vald
        лучш* хорош* предпоч* выбран* принят* правильн* положительн* кращ* найкращ* обран* прийнят* iyi tercih* secilen* dogru افضل*
        الافضل* جيد* مقبول* مختار* बेहतर अच्छ* tot baik terpilih dipilih jobb legjobb parempi paras bun buna buni καλυτερ* καλη טובה
        טוב* بهتر* خوب* ดีกว่า ดี 赞同 赞成 贊同 更好 更佳 较好 較好 最好 最佳 好 优 優 选中 選中 首选 首選 接受 采纳 採納 正例 正确
        正確 被选 良い 良かった よい 好ましい 選択された 選ばれた 採用 高評価 正解 나은 좋은 선호 선택 채택 우수""",
    "worse": """rejected reject worse worst dispreferred unpreferred declined bad negative neg lose losing loser lost incorrect wrong
        undesirable undesired unselected disliked downvoted inferior discarded unchosen poor schlecht* abgelehnt* falsch* verworfen*
        zuruckgewiesen* pire* mauvais* rejete* refuse* incorrect* peor* malo mala mal rechazad* descartad* incorrect* pior* ruim ruins
        rejeitad* recusad* incorret* peggior* cattiv* rifiutat* scartat* respint* sbagliat* slecht* afgewezen* gorsz* najgorsz*
        odrzucon* horsi spatn* odmitnut* samre samst darlig* simre verre avvist* forkastet худш* хуже плох* отклонен* отверг*
        неправильн* отрицательн* гірш* поган* відхилен* kotu* reddedilen* yanlis اسوا* الاسوا* سيئ* مرفوض* बदतर खराब xau te buruk
        ditolak rosszabb rossz huonompi huono slab slaba prost χειροτερ* κακη גרוע* بدتر* แย่กว่า แย่ 不赞同 不赞成 反对 更差 较差
        較差 最差 差 不好 不佳 坏 壞 劣 拒绝 拒絕 被拒 负例 負例 错误 錯誤 淘汰 悪い 悪かった 劣る 拒否 却下 不採用 低評価 不正解 나쁜
        거부 거절 비선호 탈락""",
    "not": "non not un dis nicht kein* nao ne не moins less weniger menos meno minder 不 非 未 비",
    "answer": """answer response reply output completion generation text message conversation solution summary candidate statement
        dialog dialogue turn content translation antwort* ausgabe* reponse* sortie* respuesta* salida* resposta* saida* rispost*
        antwoord* valasz* vastaus* raspuns* απαντηση* תשוב* پاسخ* جواب คำตอบ odpowied* odpoved* svar* ответ* відповід* cevap* yanit*
        اجابة* رد उत्तर जवाब jawaban loi 回答 答案 回复 回覆 答复 响应 回應 輸出 输出 应答 応答 返答 返信 答え 解答 出力 답변 응답
        대답 출력""",
    "question": """prompt question instruction input query request ask problem task user post frage* aufgabe* anweisung* eingabe*
        nutzer* consigne* demande* invite pregunta* consulta* instruc* entrada* pergunta* domand* istruzion* richiest* vraag* pytani*
        polecen* kerdes* kysymys* intrebare* ερωτηση* שאל* پرسش* คำถาม otazk* dotaz* fraga* sporsmal* вопрос* запрос* инструкц*
        промпт* задани* питанн* запит* soru* istem* سؤال* السؤال* सवाल प्रश्न hoi pertanyaan soal 问题 提问 指令 提示 输入 輸入 题目
        題目 問題 提問 质问 質問 指示 プロンプト 入力 問い 질문 문제 지시 프롬프트 입력""",
    "system": "system systeme sistema systemprompt системн* 系统 系統 システム 시스템",
    "history": """history historie previous earlier verlauf* historique* historial* historic* cronologia истори* 历史 歷史 履歴 이력
        기록""",
    "vote": """winner win preference preferred better best chosen choice vote verdict judgment judgement label selected selection
        decision pick picked favorite favourite comparison gewinner* wahl* urteil* stimme* bevorzugt* besser* praferenz* praeferenz*
        gagnant* choix prefere* meilleur* ganador* preferencia* eleccion* voto* mejor* vencedor* escolha* melhor* vincitor* preferenz*
        scelt* miglior* voorkeur* winnaar* победител* предпочт* выбор* голос* лучш* kazanan* tercih* 胜者 勝者 偏好 选择 選擇 投票
        更好 优胜 获胜 選好 選択 勝ち 승자 선호 선택 투표""",
    "overall": "overall total final general gesamt* global* generale 总体 總體 整体 整體 综合 総合 全体 전체 종합",
    "about": """model modell* modele* modelo* scorer score scores rating ratings id ids uid uuid url link time timestamp date length
        len count num number tokens token reason reasons explanation source rank ranks ranking prob logprob logprobs logp name names
        avg mean std critique feedback rationale justification annotator annotators category severity safe sha hash lang language type
        idx index weight reward rewards confidence method version config status temperature policy license tag tags metadata meta
        quote quotes level reference comment comments principle by at difficulty role roles 模型 分数 評分 评分 模型名 モデル 点数
        모델 점수 модел* оценк* bewertung* punkte begrundung* puntuac* pontua* punteggio""",
}
"""Words by meaning, without accents. English first; then German, French, Spanish, Portuguese, Italian, Dutch, Polish, Czech, the Nordic
languages, Russian, Ukrainian, Turkish, Arabic, Hindi, Vietnamese, Indonesian, Chinese, Japanese and Korean."""
FAMILIES = ("chosen rejected", "accepted rejected", "accepted declined", "preferred dispreferred", "preferred unpreferred", "better worse",
            "best worst", "good bad", "win lose", "winning losing", "winner loser", "won lost", "positive negative", "pos neg",
            "correct incorrect", "correct wrong", "desirable undesirable", "liked disliked", "upvoted downvoted", "selected unselected")
"""English words that belong together."""
TWO = (("a", "b"), ("0", "1"), ("1", "2"), ("first", "second"), ("left", "right"), ("one", "two"), ("x", "y"), ("甲", "乙"),
       ("erste", "zweite"), ("premiere", "deuxieme"), ("primera", "segunda"), ("primeira", "segunda"), ("prima", "seconda"),
       ("первый", "второй"))
"""By which the names of two columns differ that hold two answers of which neither is named as the better."""
WITHOUT_SPACES = re.compile("[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
SPLIT = re.compile(r"[\W_]+|(?<=[a-z])(?=[0-9])|(?<=[0-9])(?=[^\W\d_])|(?<=[\u3040-\ud7af])(?=[a-z0-9])|(?<=[a-z0-9])(?=[\u3040-\ud7af])")


def folded(text: str) -> str:
    """A text as names are compared: small letters without accents."""
    return _bare(text).casefold()


def _bare(text: str) -> str:
    bare = "".join(letter for letter in unicodedata.normalize("NFD", unicodedata.normalize("NFKC", text))
                   if unicodedata.category(letter) not in ("Mn", "Mc") or "\u3099" <= letter <= "\u309a")
    return unicodedata.normalize("NFC", bare)


@lru_cache(maxsize=4096)
def words(name: str) -> tuple[str, ...]:
    """The words of a name, folded."""
    spaced = re.sub(r"(?<=[^\W\d_])(?<![A-Z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", _bare(name))
    return tuple(word for word in SPLIT.split(folded(spaced)) if word)


def same(one: str, other: str) -> bool:
    """Whether two names are the same words."""
    return words(one) == words(other)


@dataclass(frozen=True)
class Meaning:
    """What a name says. `rest` are its words without those that say better or worse."""

    better: bool
    worse: bool
    also: frozenset[str]
    rest: tuple[str, ...]
    family: str = ""

    @property
    def about(self) -> bool:
        """Whether it names something about an answer, such as its model or its score, rather than the answer."""
        return "about" in self.also


@lru_cache(maxsize=4096)
def meaning(name: str) -> Meaning:
    """What a name says, by its words."""
    found, better, worse, rest, family, negated = set(), False, False, [], "", False
    for word in _pieces(name):
        here = meanings(word)
        if "better" in here or "worse" in here:
            is_worse = ("worse" in here) != negated
            better, worse, family = better or not is_worse, worse or is_worse, word
        elif "not" in here:
            negated = True
            continue
        else:
            rest.append(word.removesuffix("s") if word.isascii() else word)
        found |= here
        negated = False
    if words(name) in (("response", "j"), ("response", "k"), ("y", "w"), ("y", "l")):  # as papers and their data sets write them
        better, worse, rest = words(name)[1] in "jw", words(name)[1] in "kl", [words(name)[0]]
    return Meaning(better and not worse, worse, frozenset(found), tuple(rest), family)


def belong_together(better: Meaning, worse: Meaning) -> bool:
    """Whether two names use words that are opposites; what is not English is not asked."""
    return f"{better.family} {worse.family}" in FAMILIES


@lru_cache(maxsize=4096)
def meanings(word: str) -> frozenset[str]:
    """The meanings of one word."""
    exact, stems = _lists()
    found = set(exact.get(word, ())) | set(exact.get(word.removesuffix("s"), ()) if len(word) > 3 else ())
    return frozenset(found.union(*(kinds for stem, kinds in stems.items() if word.startswith(stem))))


def means(name: str, kind: str) -> bool:
    """Whether a word of the name has this meaning."""
    return any(kind in meanings(word) for word in _pieces(name))


@lru_cache(maxsize=4096)
def _lists() -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    exact, stems = {}, {}
    for kind, text in VOCABULARY.items():
        for word in text.split():
            (stems if word.endswith("*") else exact).setdefault(folded(word.removesuffix("*")), set()).add(kind)
    return exact, stems


@lru_cache(maxsize=4096)
def _pieces(name: str) -> tuple[str, ...]:
    """The words of a name; what is written without spaces is divided into those that are known, the longest first."""
    return tuple(piece for word in words(name) for piece in (_divided(word) if WITHOUT_SPACES.search(word) else [word]))


def _divided(word: str) -> list[str]:
    known = sorted((one for one in _lists()[0] if WITHOUT_SPACES.search(one)), key=len, reverse=True)
    found, left = [], word
    while left:
        piece = next((one for one in known if left.startswith(one)), left[0])
        found.append(piece)
        left = left[len(piece) :]
    return [piece for piece in found if piece in _lists()[0] or piece not in "的なのいにれをがは더한된은는이가"]


def two_of(names: Sequence[str]) -> list[tuple[str, str]]:
    """Columns whose names differ in one word alone, by which they are the first and the second of two."""
    by_words = {words(name): name for name in reversed(names)}
    found = []
    for first in names:
        one = words(first)
        for at, word in enumerate(one):
            seconds = [by_words.get((*one[:at], other, *one[at + 1 :])) for label, other in TWO if label == word]
            found += [(first, second) for second in seconds if second is not None]
    return found


def label_of(one: str, other: str) -> tuple[str, str]:
    """The words by which two names of `two_of` differ."""
    return next(both for both in zip(words(one), words(other), strict=True) if both[0] != both[1])
