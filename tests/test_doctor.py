"""The doctor finds what is wrong, only that, and what it offers to do against it works."""

import random
import time
from array import array

import pytest

from studio.preferences import doctor, edits, hashes, openings
from studio.preferences.checks import REFUSAL
from studio.preferences.findings import Finding, Seen
from studio.preferences.language import language_of
from studio.preferences.pairs import Pair

WORDS = ["river", "stone", "garden", "winter", "music", "letter", "window", "bread", "paper", "silver", "morning", "road", "candle", "harbour", "forest", "engine", "mirror", "bottle", "summer", "teacher", "hammer", "blanket", "whistle", "mountain"]


def pair(question, chosen, rejected):
    return Pair([{"role": "user", "content": question}], [{"role": "assistant", "content": chosen}],
                [{"role": "assistant", "content": rejected}])


def text(rng, words=25):
    return " ".join(rng.choices(WORDS, k=words)).capitalize() + "."


def sound(count=100, seed=0):
    """Pairs with which nothing is wrong."""
    rng = random.Random(seed)
    return [pair(f"Question {number}: {text(rng)}", text(rng, 20), text(rng, 20)) for number in range(count)]


def seen(pairs, held_out=0):
    return [Seen(number, one, number > len(pairs) - held_out) for number, one in enumerate(pairs, start=1)]


def named(pairs, name, held_out=0):
    return next((finding for finding in doctor.examine(seen(pairs, held_out)) if finding.name == name), None)


def test_sound_pairs_are_ready():
    findings = doctor.examine(seen(sound()))
    assert findings == []
    assert doctor.verdict(findings, 100, 0) == ("ready", "100 pairs can be learned from, and nothing that is looked for is wrong with them.")


ASKED = {
    "English": "What is the reason that the sky looks blue to us?", "German": "Warum ist der Himmel für uns eigentlich blau?",
    "French": "Pourquoi le ciel est-il bleu, et comment peut-on l'expliquer avec des mots simples ?",
    "Cyrillic script": "Почему небо кажется нам голубым?",
}
ANSWERED = {
    "English": "The air scatters the blue part of the light more than the red, which is why it reaches your eyes from all sides.",
    "German": "Das Blau wird von der Luft stärker gestreut als das Rot, und es kommt dann von allen Seiten auf uns zu.",
    "French": "Le bleu est diffusé par l'air plus que le rouge, et il arrive donc de tous les côtés, même à l'ombre, dans nos yeux.",
    "Spanish": "El azul se dispersa en el aire más que el rojo, y por eso llega a los ojos desde todas partes cuando hay luz.",
    "Italian": "Il blu viene diffuso dall'aria più del rosso, e per questo arriva anche agli occhi da tutte le parti della volta, non solo da una.",
    "Portuguese": "O azul é espalhado pelo ar muito mais do que o vermelho, e por isso ele chega aos olhos de todos os lados, não só de um.",
    "Dutch": "Het blauw wordt door de lucht meer verstrooid dan het rood, en daarom komt het van alle kanten naar ons toe.",
    "Chinese": "空气对蓝光的散射比红光强得多，所以蓝光从四面八方进入我们的眼睛。",
    "Japanese": "空気は赤い光よりも青い光を強く散乱させるので、青い光があらゆる方向から目に届きます。",
    "Korean": "공기는 붉은 빛보다 푸른 빛을 더 강하게 산란시키기 때문입니다.",
    "Arabic script": "لأن الهواء يشتت الضوء الأزرق أكثر من الضوء الأحمر.",
    "Devanagari script": "क्योंकि हवा लाल रोशनी की तुलना में नीली रोशनी को अधिक बिखेरती है।",
}
LONG = "This answer goes on and on about the river and the stone and the garden in winter. " * 3
CASES = {
    "duplicates": lambda rng: [pair("Why is it so?", "Because of this.", "No."), pair("why  is it SO?", "because of this.", "no.")],
    "contradictions": lambda rng: [pair("Why?", "Because.", "No."), pair("Why?", "No.", "Because.")],
    "refusals": lambda rng: [pair("How?", "I'm sorry, but I can't help with that.", "Like this: turn it."),
                             pair("And how?", "As an AI language model, I have no opinion.", "Well, so.")],
    "cut-answers": lambda rng: [pair(f"Tell me {at}.", LONG + "and then the", "No.") for at in range(3)],
    "markup": lambda rng: [pair("What?", "This.<|im_end|>", "That."), pair("[INST] What else? [/INST]", "This.", "That.")],
    "tiny-differences": lambda rng: [pair("Where?", "Over there!", "over there")],
    "secrets": lambda rng: [pair("Who?", "Write to jane.doe@example.org.", "Nobody."), pair("Key?", "hf_" + "a" * 34, "None.")],
    "extreme": lambda rng: [pair("All of it?", text(rng, 20_000), "No.")],
    "language-mix": lambda rng: [pair(ASKED["English"], ANSWERED["German"], ANSWERED["English"]), pair(ASKED["German"], ANSWERED["English"], "Nein."),
                                 pair(ASKED["English"], ANSWERED["Chinese"], "No."), pair(ASKED["Cyrillic script"], ANSWERED["English"], "Нет.")],
    "invisible-characters": lambda rng: [pair("Which?", "The sec\u200bond.", "The first."), pair("Which one?", "The third.", "The \u202efourth."),
                              pair("Which then?", "The sev\u00adenth.", "None.")],
}
LOOK_ALIKES = [
    pair("How are you?", "I'm sorry to hear that you are unwell; rest a little.", "Fine, thanks."),
    pair("What is 1 < 2?", "It is true, as 1 < 2 and <b>not</b> otherwise.", "It is @ false."),
    pair("List three.", LONG + "\n- one\n- two\n- three", "Never."),
    pair("Where else?", "There, on the left.", "There, on the right."),
    pair("Which family?", "The family 👩\u200d👩\u200d👧, and می\u200cخواهم.", "The other."),
    pair("Translate this into German: why does it look blue to us, as you see it?", ANSWERED["German"], "It is blue."),
    pair("What is the way that you would write this in Python?", "```python\nwhile True: pass\n```\n" + ANSWERED["German"], "No."),
]


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_found_counted_named_and_mended(name):
    rng = random.Random(1)
    wrong = CASES[name](rng)
    pairs = sound() + LOOK_ALIKES + wrong
    found = named(pairs, name)
    concerned = 1 if name in ("duplicates", "contradictions") else len(wrong)
    assert found.count == concerned and found.rows == tuple(range(len(pairs) - concerned + 1, len(pairs) + 1))
    assert f"{concerned:,} of {len(pairs):,} pairs" in found.words and str(concerned) in found.button
    left = [one.pair for one in edits.Editor(edits.parse(found.edit)).pairs(seen(pairs))]
    assert len(left) == len(pairs) - concerned and named(left, name) is None


@pytest.mark.parametrize("language", ANSWERED)
def test_the_language_of_a_sentence_is_told(language):
    assert language_of(ANSWERED[language]) == language


@pytest.mark.parametrize("unsure", [
    "", "Paris.", "42", "Bonn und Berlin", "for item in items:\n    if item is not None and item in other:\n        return item\nelse: pass",
    "SELECT this FROM that WHERE a IN (1, 2) AND b IS NOT NULL ORDER BY c", "Stolica Francji to Paryż, który leży nad Sekwaną i ma wiele muzeów.",
    "Capitala Franței este Paris, care se află pe Sena și are multe muzee.", "Thủ đô của Pháp là Paris, nằm bên bờ sông Seine.", "是的。",
    "What is the meaning of «Почему небо кажется нам голубым?»",
])
def test_a_language_that_is_not_sure_is_not_told(unsure):
    assert language_of(unsure) == ""


def test_an_answer_is_compared_with_the_last_question_and_not_with_what_was_said_before():
    talk = Pair([{"role": "user", "content": ASKED["English"]}, {"role": "assistant", "content": ANSWERED["English"]},
                 {"role": "user", "content": ASKED["German"]}], pair("", ANSWERED["German"], "").chosen, pair("", "", "Nein.").rejected)
    assert named([*sound(), talk], "language-mix") is None


def test_several_languages_are_told_with_their_shares_and_one_is_not():
    english, german = (pair("?", ANSWERED[language], "?") for language in ("English", "German"))
    found = named([english] * 90 + [german] * 10, "languages")
    assert "90% English, 10% German" in found.words and (found.count, found.rows, found.edit) == (10, tuple(range(91, 101)), "")
    assert named([english] * 99 + [german], "languages") is None and named([english] * 20 + [german] * 20, "languages") is None


def opened(count, better, worse=""):
    """Pairs of which the first `count` begin with these words."""
    return [pair(one.prompt[0]["content"], better * (at < count) + one.chosen[0]["content"], worse * (at < count) + one.rejected[0]["content"])
            for at, one in enumerate(sound(100))]


@pytest.mark.parametrize(("begins", "told"), [
    ("Sure! ", "Sure"), ("Certainly! Here is the ", "Certainly! Here is the"), ("As a helpful assistant, ", "As a helpful assistant"),
    ("**Of course!** ", "**Of course"), ("好的，", "好的"),
])
def test_an_opening_of_many_better_answers_is_named_with_its_share(begins, told):
    found = named(opened(30, begins), "openings")
    assert f"In 30 of 100 pairs (30 %) the better answer begins with “{told}”, in 0 the worse one does" in found.words
    assert (found.weight, found.count, found.rows, found.edit) == ("warn", 30, tuple(range(1, 31)), "")


def test_an_opening_that_is_rare_or_begins_the_worse_answers_as_well_is_not_told():
    assert named(opened(12, "Certainly! Here is "), "openings") is None
    assert named(opened(60, "Certainly! Here is ", "Certainly! Here is "), "openings") is None
    assert named(opened(60, "", "Certainly! Here is "), "openings") is None


def test_openings_are_counted_in_bounded_memory_and_nearly_right(monkeypatch):
    monkeypatch.setattr(openings, "WINDOW", 100)
    counted = openings.Frequent()
    for number in range(20_000):
        counted.add([f"rare {number}", "often here"] if number % 4 == 0 else [f"rare {number}"])
    assert len(counted.counts) < 200 and 5000 - 200 <= counted.counts["often here"] <= 5000


def test_questions_that_are_asked_again_and_again_are_told_and_repeats_are_not():
    rng = random.Random(5)
    again = [pair(f"Question of {number % 20}?", text(rng), text(rng)) for number in range(60)]
    found = named(sound(40) + again, "repeated-questions")
    assert "40 of 100 pairs" in found.words and (found.weight, found.count, found.rows[0], found.edit) == ("hint", 40, 61, "")
    assert named(sound() + again[:40], "repeated-questions") is None
    assert named(sound() + sound(), "repeated-questions") is None


@pytest.mark.parametrize(("answer", "refuses"), [
    ("I’m sorry, but I can’t help with that.", True), ("I can’t help with this.", True), ("My apologies, but I cannot do so.", True),
    ("Unfortunately, I cannot provide that.", True), ("I cannot fulfill this request.", True), ("I will not generate such a text.", True),
    ("I must respectfully decline.", True), ("I don't feel comfortable writing this.", True), ("I'm not comfortable with it.", True),
    ("Unfortunately, I can't make it to your party.", False), ("I must say that it is fine.", False), ("My apologies for the wait: it is 4.", False),
    ("I will not forget it.", False), ("I'm sorry for your loss.", False),
])
def test_refusals_are_told_from_what_only_sounds_like_one(answer, refuses):
    assert bool(REFUSAL.match(answer)) is refuses


def test_sets_and_tables_of_hashes_do_what_pythons_do_in_a_fraction_of_the_memory(monkeypatch):
    monkeypatch.setattr(hashes, "SMALLEST", 64)
    rng = random.Random(6)
    numbers = [0, *(rng.getrandbits(64) for _ in range(20_000))]
    asked = rng.choices(numbers, k=30_000)
    numbered, places, known, first = hashes.Hashes(), hashes.Places(), set(), {}
    for at, number in enumerate(asked):
        assert numbered.add(number) is (number in known) and places.get(number) == first.get(number)
        places.put(number, at)
        known.add(number)
        first.setdefault(number, at)
    assert all((number in numbered) is (number in known) and places.get(number) == first.get(number) for number in numbers)
    kept = [values for table in (numbered, places) for values in vars(table).values() if isinstance(values, array)]
    assert sum(values.itemsize * len(values) for values in kept) < 64 * len(known)


def test_the_same_pairs_give_the_same_answers_every_time():
    rng = random.Random(7)
    answer = text(rng, 60)
    pairs = [*sound(), *[pair(f"Which {word}?", answer.replace(word, "brook", 1), "No.") for word in WORDS]]
    looks = [doctor.CHECKS["near-duplicates"]().see for _ in range(2)]
    first, again = ([look(one) for one in seen(pairs)] for look in looks)
    assert first == again and sum(first) > 5


def test_almost_the_same_pair_is_found_and_one_on_the_same_subject_is_not():
    rng = random.Random(2)
    question, answer = text(rng, 60), text(rng, 60)
    nearly, related = answer.replace("river", "brook", 1), " ".join(answer.split()[:30]) + " " + text(rng, 60)
    pairs = [*sound(), pair(question, answer, "No."), pair(question, nearly, "Never."), pair(text(rng, 60), related, "No.")]
    found = named(pairs, "near-duplicates")
    assert found.rows == (102,) and named(pairs[:101] + pairs[102:], "near-duplicates") is None


def test_secrets_are_never_repeated():
    found = named([*sound(), *CASES["secrets"](None)], "secrets")
    assert "1 with an e-mail address, 1 with an access key" in found.words
    assert "jane" not in found.words and "aaaa" not in found.words


def test_held_out_questions_among_the_others_are_leaks():
    pairs = [*sound(), pair("Question 0: again?", "Yes, again.", "No."), sound()[3]]
    assert named(pairs, "leaks", held_out=2).rows == (102,)
    assert named(pairs, "leaks") is None


@pytest.mark.parametrize(("longer", "name"), [(True, "longer-answers-win"), (False, "shorter-answers-win")])
def test_length_that_decides_is_told(longer, name):
    rng = random.Random(3)
    pairs = [pair(text(rng), *((text(rng, 40), text(rng, 10)) if longer else (text(rng, 10), text(rng, 40)))) for _ in range(60)]
    assert "60 of 60 pairs (100 %)" in named(pairs, name).words and named(pairs[:20], name) is None


def test_better_and_worse_that_are_exchanged_are_suspected_and_swapped_back():
    refusals = [pair(f"How does {at} work?", "I'm sorry, but I can't help with that.", text(random.Random(at))) for at in range(20)]
    found = named(sound() + refusals, "swapped")
    assert found.weight == "bad" and found.edit == "swap all" and "In 20 of the 20 pairs" in found.words
    mended = [one.pair for one in edits.Editor(edits.parse(found.edit)).pairs(seen(sound() + refusals))]
    assert named(mended, "swapped") is None
    both = refusals[:10] + [pair(one.prompt[0]["content"], one.rejected[0]["content"], one.chosen[0]["content"]) for one in refusals[10:]]
    assert named(sound() + both, "swapped") is None


def test_very_few_pairs_are_mentioned():
    assert "There are 12 pairs" in named(sound(12), "few").words


def test_the_verdict_has_three_states():
    warning, grave = (Finding("x", weight, 1, "", ()) for weight in ("warn", "bad"))
    assert doctor.verdict([], 1, 5)[0] == "not ready"
    assert doctor.verdict([warning, grave], 100, 0)[0] == "not ready"
    assert doctor.verdict([warning], 100, 0) == ("ready with losses", "100 pairs can be learned from; 1 finding below deserves a look.")
    assert doctor.verdict([], 100, 7) == ("ready with losses", "100 pairs can be learned from; 7 rows will be left out.")
    assert doctor.verdict([Finding("few", "hint", 9, "", ())], 9, 0)[0] == "ready"


def test_two_thousand_pairs_take_under_two_seconds_of_work():
    rng = random.Random(4)
    pairs = [pair(text(rng, 60), text(rng, 130), text(rng, 130)) for _ in range(2000)]
    began = time.process_time()
    doctor.examine(seen(pairs))
    assert time.process_time() - began < 2
