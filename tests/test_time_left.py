"""How long a run still takes: its steps, and the measurements between and after them; a range while little is known."""

import pytest

from studio.events import Entered, Evaluated, Planned, Progressed, Resumed, Started, Stepped
from studio.summary import Summary, between
from studio.ui import runs_tab


def run(until: int, steps: int = 10, every: int = 5, step_seconds: float = 2.0, look_seconds: float = 20.0) -> list:
    """A run's log up to a step: a look at the base first, then one after every so many steps."""
    said, at = [Started("cpu", {}, at=0.0), Planned(80, 20, steps, measure_every=every, at=1.0), Entered("evaluating", at=1.0)], 1.0 + look_seconds
    said += [Evaluated(0, "base", {"rewards/accuracies": 0.5}, at=at), Entered("training", at=at)]
    for step in range(1, until + 1):
        at += step_seconds
        said.append(Stepped(step, {}, at=at))
        if step % every == 0 and step < steps:
            said.append(Entered("evaluating", at=at))
            at += look_seconds
            said += [Evaluated(step, "tuned", {"rewards/accuracies": 0.6}, at=at), Entered("training", at=at)]
    return said


def test_measuring_is_no_part_of_a_step_and_part_of_the_time_left():
    seen = Summary(run(7))
    assert seen.seconds_a_step == pytest.approx(2) and seen.seconds_a_look == pytest.approx(20)
    assert seen.seconds_left == pytest.approx(3 * 2 + 20)
    assert Summary(run(3)).seconds_left == pytest.approx(7 * 2 + 2 * 20)


def test_the_last_measurement_is_not_nothing_left():
    """It said "left 0 s" for as long as the held-out pairs were measured at the end."""
    said = run(10)
    at = said[-1].at
    for steps_end in ([Entered("saving", at=at)], [Entered("saving", at=at), Entered("evaluating", at=at + 1)]):
        assert Summary([*said, *steps_end]).seconds_left == pytest.approx(20)
    half = [*said, Entered("evaluating", at=at), Progressed(10, 20, "held-out pairs", at=at + 12)]
    assert Summary(half).seconds_left == pytest.approx(12)  # slower than the looks before
    shown = runs_tab.figures(Summary(half), moving=True)
    assert "12 s" in shown and "0 s<" not in shown.replace("20 s", "")
    nearly = [*half, Progressed(20, 20, "held-out pairs", at=at + 20.5)]
    assert Summary(nearly).left_in_words == "a moment"


def test_a_look_in_the_middle_counts_as_far_as_it_is_not_over():
    said = run(4)
    said += [Stepped(5, {}, at=said[-1].at + 2), Entered("evaluating", at=said[-1].at + 2)]
    assert Summary(said).seconds_left == pytest.approx(5 * 2 + 20 + 20)


def test_the_time_left_is_a_range_until_some_of_the_run_is_done():
    assert Summary(run(3, steps=200)).left_in_words == between(0.75 * (197 * 2 + 40 * 20), 1.5 * (197 * 2 + 40 * 20)) == "15 to 30 min"
    assert Summary(run(12, steps=200)).left_in_words == "18 min 56 s"
    assert Summary([*run(12, steps=200), Resumed(10, at=1000.0), Stepped(11, {}, at=1002.0)]).left_in_words == "–"


@pytest.mark.parametrize(("ends", "words"), [((12, 40), "12 to 40 s"), ((60, 400), "1 to 7 min"), ((1800, 9000), "0.5 to 2.5 h"),
                                             ((90_000, 900_000), "1 to 10 days"), ((100, 102), "100 to 102 s"), ((700, 710), "12 min")])
def test_a_range_is_for_the_eye(ends, words):
    assert between(*ends) == words
