"""The doctor finds what is wrong, only that, and what it offers to do against it works."""

import random
import time

import pytest

from studio.preferences import doctor, edits
from studio.preferences.findings import Finding, Seen
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
}
LOOK_ALIKES = [
    pair("How are you?", "I'm sorry to hear that you are unwell; rest a little.", "Fine, thanks."),
    pair("What is 1 < 2?", "It is true, as 1 < 2 and <b>not</b> otherwise.", "It is @ false."),
    pair("List three.", LONG + "\n- one\n- two\n- three", "Never."),
    pair("Where else?", "There, on the left.", "There, on the right."),
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
    assert "60 of 60 pairs (100%)" in named(pairs, name).words and named(pairs[:20], name) is None


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
