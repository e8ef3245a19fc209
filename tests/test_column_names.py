"""Columns are known by the words of their names, in whichever language, spelling and structure they come."""

import itertools
import json

import pytest

from studio.errors import DataError
from studio.preferences.column_names import meaning, means, two_of
from studio.preferences.recognition import recognise

TALKS = [("How do I prune a rose bush?", "Cut out the dead wood first.", "Just cut it all."), ("What is a leap year?", "One of 366 days.", "One that leaps.")]
LANGUAGES = {
    "English": ("question", "better answer", "worse answer"), "English, other words": ("user prompt", "preferred reply", "non-preferred reply"),
    "German": ("Frage", "bessere Antwort", "schlechtere Antwort"), "German, briefly": ("Frage", "gut", "schlecht"),
    "French": ("question", "meilleure réponse", "pire réponse"), "French, good and bad": ("consigne", "bonne réponse", "mauvaise réponse"),
    "Spanish": ("pregunta", "mejor respuesta", "peor respuesta"), "Spanish, chosen": ("pregunta", "respuesta elegida", "respuesta rechazada"),
    "Portuguese": ("pergunta", "melhor resposta", "pior resposta"), "Italian": ("domanda", "risposta migliore", "risposta peggiore"),
    "Dutch": ("vraag", "beter antwoord", "slechter antwoord"), "Polish": ("pytanie", "lepsza odpowiedź", "gorsza odpowiedź"),
    "Czech": ("otázka", "lepší odpověď", "horší odpověď"), "Swedish": ("fråga", "bättre svar", "sämre svar"),
    "Russian": ("вопрос", "лучший ответ", "худший ответ"), "Ukrainian": ("запитання", "краща відповідь", "гірша відповідь"),
    "Turkish": ("soru", "iyi cevap", "kötü cevap"), "Greek": ("ερώτηση", "καλύτερη απάντηση", "χειρότερη απάντηση"),
    "Arabic": ("السؤال", "الإجابة الأفضل", "الإجابة الأسوأ"), "Hindi": ("प्रश्न", "बेहतर उत्तर", "बदतर उत्तर"),
    "Chinese": ("问题", "更好的回答", "更差的回答"), "Chinese, briefly": ("指令", "好", "坏"), "Traditional Chinese": ("問題", "較好的回答", "較差的回答"),
    "Japanese": ("質問", "良い回答", "悪い回答"), "Korean": ("질문", "더 나은 답변", "더 나쁜 답변"), "Korean, chosen": ("프롬프트", "선택된 응답", "거부된 응답"),
    "Vietnamese": ("câu hỏi", "câu trả lời tốt", "câu trả lời xấu"), "Indonesian": ("pertanyaan", "jawaban baik", "jawaban buruk"),
}
SPELLINGS = {
    "as words": lambda name: name, "with underscores": lambda name: name.replace(" ", "_"), "with hyphens": lambda name: name.replace(" ", "-"),
    "in capitals": str.upper, "as a title": str.title, "in one word": lambda name: name.title().replace(" ", "").replace("-", ""), "padded": lambda name: f"{name} ",
}
STRUCTURES = {
    "flat": lambda row: row, "in a row": lambda row: {"row_idx": 1, "row": row}, "two deep": lambda row: {"record": {"fields": row}, "id": "x"},
    "in lists": lambda row: {name: [text] for name, text in row.items()},
    "as turns": lambda row: {name: [{"role": "user" if at == 0 else "assistant", "content": text}] for at, (name, text) in enumerate(row.items())},
    "as turns in cells": lambda row: {name: json.dumps([{"role": "user" if at == 0 else "assistant", "content": text}]) for at, (name, text) in enumerate(row.items())},
    "in structs": lambda row: {name: {"text": text, "model": "north-7b"} for name, text in row.items()},
}


def pairs(rows):
    found = list(recognise(list(rows[0]), rows).read(enumerate(rows)))
    return [tuple(part[-1]["content"] for part in (one.pair.prompt, one.pair.chosen, one.pair.rejected)) if one.pair else one.reason for one in found]


@pytest.mark.parametrize("language", LANGUAGES)
def test_question_better_and_worse_are_known_in_every_spelling_and_structure(language):
    for (spelling, spell), (structure, build) in itertools.product(SPELLINGS.items(), STRUCTURES.items()):
        if spelling == "in one word" and not LANGUAGES[language][1].isascii():
            continue  # capitals divide words where there are capitals, and accents are not theirs to keep
        rows = [build(dict(zip(map(spell, LANGUAGES[language]), talk, strict=True))) for talk in TALKS]
        assert pairs(rows) == TALKS, (spelling, structure)


@pytest.mark.parametrize(("question", "one", "other", "vote", "marks"), [
    ("Frage", "Antwort A", "Antwort B", "Gewinner", "AB"), ("question", "réponse 1", "réponse 2", "préférée", "12"),
    ("pregunta", "respuesta_a", "respuesta_b", "preferencia", ["respuesta_a", "respuesta_b"]), ("问题", "回答A", "回答B", "偏好", "AB"),
    ("質問", "回答1", "回答2", "勝者", "12"), ("질문", "답변 A", "답변 B", "선호", ["답변 A", "답변 B"]), ("вопрос", "ответ 1", "ответ 2", "победитель", "12"),
    ("anything", "left", "right", "whatever", ["left", "right"]), ("q", "reply first", "reply second", "who won", ["first", "second"])])
def test_votes_are_known_by_their_values_in_every_language(question, one, other, vote, marks):
    rows = [{question: talk[0], one: talk[1 + at], other: talk[2 - at], vote: marks[at]} for at, talk in enumerate(TALKS)]
    assert pairs(rows) == TALKS


@pytest.mark.parametrize("row", [
    {"q": "Why?", "x": "Because of that.", "y": "I do not know."}, {"question": "Why?", "first": "Because of that.", "second": "I do not know."},
    {"prompt": "Why?", "alpha": "Because of that.", "beta": "I do not know."}, {"prompt": "Why?", "response": "Because of that.", "chosen": "So."},
    {"prompt": "Why?", "response_a": "Because.", "response_b": "So.", "tone_preference": "A", "style_preference": "B"},
    {"prompt": "Why?", "response_a": "Because.", "response_b": "So.", "remark": "I like A."}])
def test_which_answer_is_better_is_never_guessed(row):
    with pytest.raises(DataError, match=r"Name (the|one|it)"):
        recognise(list(row), [row, row])


def test_what_is_about_an_answer_is_not_the_answer():
    for name in ("chosen_model", "chosen_score", "rejected rating", "better_response_id", "chosen-length", "chosenTokens"):
        assert meaning(name).about, name
    row = {"prompt": "Why?", "chosen_model": "north-7b", "rejected_model": "south-8b", "chosen_response": "Because of that.", "rejected_response": "No."}
    assert pairs([row]) == [("Why?", "Because of that.", "No.")]
    assert means("总体偏好", "overall") and means("总体偏好", "vote") and two_of(["回答1", "x", "回答2"]) == [("回答1", "回答2")]
