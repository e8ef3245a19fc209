"""Pairs are collected by preferring one answer to another, and are then data like any other."""

import threading

import pytest

from studio import collected
from studio.engine import data
from studio.errors import StudioError
from studio.preferences.pairs import Pair
from studio.settings import Settings
from studio.ui.talk import Talk, preferred


def talk(*texts):
    return [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 3, texts, strict=False)]


def of_both(first, second, who, own=None):
    """The pair that a preference makes of two talks that are complete."""
    return preferred(Talk(first=tuple(first), second=tuple(second)), who, own)


def pair(number=0):
    return of_both(talk(f"Why {number}?", "Base says."), talk(f"Why {number}?", "Tuned says."), 1)


@pytest.mark.parametrize(("who", "own", "better", "worse"), [
    (0, None, "Base says.", "Tuned says."), (1, None, "Tuned says.", "Base says."), ("neither", " I say. ", " I say. ", "Tuned says.")])
def test_the_preferred_answer_is_the_better_one(who, own, better, worse):
    made = of_both(talk("Why?", "Base says."), talk("Why?", "Tuned says."), who, own)
    assert made == Pair(talk("Why?"), [{"role": "assistant", "content": better}], [{"role": "assistant", "content": worse}])


def test_talks_that_have_parted_make_no_pair():
    with pytest.raises(StudioError, match="different talks"):
        of_both(talk("Why?", "a", "And?", "c"), talk("Why?", "b", "And?", "d"), 0)
    with pytest.raises(StudioError, match="no two answers yet"):
        of_both([], [], 0)


def test_answers_that_teach_nothing_are_refused_and_nothing_is_kept(tmp_path):
    for better, told in (("Tuned says.", "the same"), (" ", "Your answer is empty")):
        with pytest.raises(StudioError, match=told):
            collected.add(tmp_path, of_both(talk("Why?", "x"), talk("Why?", "Tuned says."), "neither", better), "run")
    assert collected.count(tmp_path) == 0 and not collected.path(tmp_path).exists()


def test_many_may_collect_at_once_and_what_they_collect_can_be_learned_from(tmp_path):
    threads = [threading.Thread(target=lambda at=at: [collected.add(tmp_path, pair(10 * at + number), "run") for number in range(10)])
               for at in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert collected.count(tmp_path) == 60
    reading = data.read(Settings.from_form(**{"data.source": str(collected.path(tmp_path))}).data)
    assert len(reading.found) == 60 and reading.stream.account.left_out.total() == 0
    assert {seen.pair.chosen[0]["content"] for seen in reading.found} == {"Tuned says."}
