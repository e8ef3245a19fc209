"""What events add up to: phase, speed, time left, words."""

import pytest

from studio import summary
from studio.events import Entered, Evaluated, Noted, Planned, Progressed, Resumed, Sampled, Started, Stepped
from studio.summary import Summary
from studio.ui import explain, runs_tab


def steps(margins, logps=None):
    logps = logps or [-1.0] * len(margins)
    return [Stepped(at + 1, {"rewards/margins": margin, "rewards/chosen": -0.1, "logps/chosen": logp, "rewards/accuracies": 1.0},
                    at=100.0 + 2 * at) for at, (margin, logp) in enumerate(zip(margins, logps, strict=True))]


def test_time_left_is_steps_left_at_the_present_speed():
    seen = Summary([Started("cpu", {}, at=90.0), Planned(100, 10, steps=20), *steps([0.1] * 5)])
    assert seen.seconds_a_step == pytest.approx(2)
    assert seen.seconds_left == pytest.approx(30)
    assert seen.seconds_taken == pytest.approx(18)


def test_nothing_is_known_before_it_is_said():
    empty = Summary([])
    assert (empty.phase, empty.progress, empty.step, empty.seconds_left, empty.seconds_taken, empty.memory) == (None, None, 0, None, None, None)


@pytest.mark.fault("T30")
def test_a_clock_set_back_gives_no_negative_time():
    seen = Summary([Started("cpu", {}, at=1000.0), Planned(9, 1, 9), *steps([0.1] * 3)])
    assert seen.seconds_taken == 0
    backwards = Summary([Planned(9, 1, 9), Stepped(1, {}, at=100.0), Stepped(2, {}, at=50.0)])
    assert backwards.seconds_left >= 0


def test_progress_belongs_to_the_present_phase():
    said = [Entered("downloading"), Progressed(5, 10, "bytes")]
    assert Summary(said).progress.done == 5
    assert Summary([*said, Entered("loading")]).progress is None


def test_the_latest_answers_are_shown_and_how_they_changed():
    """Those of steps that a resumed run takes again are void."""
    said = [Sampled(step, prompt, "curt", f"{prompt} {step} <b>") for step in (4, 8, 9) for prompt in ("Why?", "How?")]
    seen = Summary([*said[:6], Resumed(8), Stepped(9, {})])
    assert [(sample.prompt, sample.step) for sample in seen.samples] == [("Why?", 8), ("How?", 8)]
    shown = runs_tab.samples(seen)
    assert "before and after step 8" in shown and "<b>" not in shown
    assert shown.index("How the answers changed") < shown.index("Why? 4") < shown.rindex("Why? 8") < shown.index("How? 4")
    assert "How the answers changed" not in runs_tab.samples(Summary(said[:2])) and runs_tab.samples(Summary([])) == ""


def test_points_are_only_those_not_had_yet():
    said = [Noted("x"), *steps([0.1, 0.2]), Evaluated(2, "tuned", {"rewards/margins": 0.3})]
    assert summary.points(said)["total"] == 3 == summary.count_points(said)
    fresh = summary.points(said, have=2)["rows"]
    assert fresh == [{"step": 2, "split": "eval", "metrics": {"rewards/margins": 0.3}}]
    assert summary.points(said, have=99)["rows"] == []


@pytest.mark.parametrize(("seconds", "words"), [(None, "–"), (0.4, "0 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")])
def test_durations_are_for_the_eye(seconds, words):
    assert summary.duration(seconds) == words


def texts(said):
    return " ".join(remark.text for remark in explain.remarks(Summary(said)))


def test_a_rising_margin_is_good_news_and_negative_rewards_are_explained():
    told = texts(steps([at / 20 for at in range(20)]))
    assert "The margin is rising on the training pairs. Only held-out pairs show whether that carries over" in told
    assert "always below zero" in told


def test_a_margin_that_stands_still_is_a_warning():
    assert "not rising" in texts(steps([0.0] * 20))


def test_chosen_answers_that_become_less_likely_are_a_warning():
    assert "less likely too" in texts(steps([at / 20 for at in range(20)], [-1 - at / 10 for at in range(20)]))


def test_nothing_is_said_about_a_trend_too_early():
    assert texts(steps([0.1] * 5)) == ""


def test_the_verdict_compares_base_and_tuned_with_their_number():
    def measured(model, accuracy):
        return Evaluated(0, model, {"rewards/accuracies": accuracy, "n": 100})

    said = explain.verdict(Summary([measured("base", 0.5), measured("tuned", 0.985)]))
    assert said.kind == "good" and "100 pairs" in said.text and "98.5 %" in said.text and "50.0 %" in said.text
    assert explain.verdict(Summary([measured("base", 0.6), measured("tuned", 0.6)])).kind == "warn"
    assert explain.verdict(Summary([measured("base", 0.6)])) is None
