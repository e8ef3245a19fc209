"""Base against tuned on the same held-out pairs: what changed, and whether chance alone could do it."""

import math
import random
from statistics import NormalDist

import pytest

from studio import chance, events
from studio.engine import evaluate
from studio.engine.orpo.scoring import Scorer
from studio.events import Evaluated, parse
from studio.held_out import compared
from studio.summary import Summary
from studio.ui import explain
from tests import families


def measured(*pairs: tuple[float, float]) -> Summary:
    """A run whose held-out pairs had these margins, before and after."""
    return Summary([Evaluated(step, model, {"rewards/accuracies": sum(margin > 0 for margin in each) / len(each), "n": len(each)}, each)
                    for (step, model), each in zip(((0, "base"), (9, "tuned")), zip(*pairs, strict=True), strict=True)])


# --- chance ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("those", "of", "low", "high"), [
    (15, 20, 0.5313, 0.8881), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)])
def test_the_interval_of_a_share_is_wilson_s(those, of, low, high):
    """The last row is the first example of Newcombe 1998 (Statistics in Medicine 17, 857-872, method 3)."""
    assert chance.interval(those, of) == pytest.approx((low, high), abs=5e-5)
    for end in (low, high):  # where the share lies just as far off as 95 of 100 do
        if 0 < end < 1:
            assert abs(those / of - end) == pytest.approx(NormalDist().inv_cdf(0.975) * math.sqrt(end * (1 - end) / of), abs=1e-4)


def test_nothing_is_known_of_a_share_that_nobody_looked_for():
    assert chance.interval(0, 0) == (0, 1)


@pytest.mark.parametrize(("more", "less"), [(0, 0), (1, 0), (8, 2), (9, 1), (30, 12), (250, 190), (3000, 2800)])
def test_the_chance_of_a_split_is_that_of_coins(more, less):
    of = more + less
    exact = sum(math.comb(of, few) for few in range(min(more, less) + 1)) * 2 / 2**of
    assert chance.of_split(more, less) == chance.of_split(less, more) == pytest.approx(min(1, exact), rel=1e-9)


def test_95_of_100_intervals_hold_the_truth():
    lots = random.Random(1)
    shares = [chance.interval(sum(lots.random() < 0.8 for _ in range(60)), 60) for _ in range(1000)]
    means = [chance.mean_interval([lots.gauss(0.3, 2) for _ in range(60)]) for _ in range(1000)]
    assert 0.93 < sum(low < 0.8 < high for low, high in shares) / 1000 < 0.97
    assert 0.93 < sum(low < 0.3 < high for low, high in means) / 1000 < 0.97


# --- the comparison -------------------------------------------------------------------------------------------------------


def test_pairs_are_compared_one_by_one():
    found = compared(measured((-0.1, 0.2), (-0.2, 0.1), (0.1, 0.3), (0.2, -0.1), (0.3, 0.4)))
    assert (found.pairs, found.before, found.after, found.gained, found.lost) == (5, 0.6, 0.8, 2, 1)
    assert found.margin == pytest.approx(0.12) and found.margin_interval[0] < 0.12 < found.margin_interval[1]
    assert found.by_chance == 1 and not found.is_clear


@pytest.mark.parametrize(("pairs", "kind", "told"), [
    ([(-0.1, 0.2)] * 12 + [(0.1, 0.2)] * 8, "good", "12 pairs changed for the better, 0 for the worse, more than chance would do."),
    ([(0.2, -0.1)] * 12 + [(0.1, 0.2)] * 8, "bad", "Training made it worse"),
    ([(-0.1, 0.2)] * 3 + [(0.1, 0.2)] * 17, "info", "3 pairs changed for the better, 0 for the worse, which chance alone could do."),
    ([(0.1, 0.2 + at / 1000) for at in range(20)], "good", "No pair changed sides. The reward margin changed by +0.1095"),
    ([(0.1, 0.1 + (-1) ** at / 1000) for at in range(20)], "warn", "That is no improvement")],
    ids=["better", "worse", "perhaps", "all were right before", "nothing moved"])
def test_the_verdict_says_whether_it_is_more_than_chance(pairs, kind, told):
    said = explain.verdict(measured(*pairs))
    assert said.kind == kind and told in said.text and f"On {len(pairs)} pairs it never saw" in said.text


def test_without_each_pair_s_margin_there_is_no_comparison():
    """Runs of older versions, one pair, numbers that were no numbers, runs resumed with other data."""
    base, tuned = measured((-0.1, 0.2), (0.1, 0.2)).said
    for said in ([base], [tuned], [base, Evaluated(9, "tuned", tuned.metrics)], [base, Evaluated(9, "tuned", {}, [0.1, None])],
                 [base, Evaluated(9, "tuned", {}, [0.1])]):
        assert compared(Summary(said)) is None
    assert compared(measured((-0.1, 0.2))) is None
    assert "95 %" not in explain.verdict(Summary([base, Evaluated(9, "tuned", tuned.metrics)])).text


def test_a_margin_that_is_no_number_is_null_in_the_log_and_everything_else_stays(tmp_path):
    events.append(tmp_path / "log", Evaluated(9, "tuned", {}, (0.25, math.nan)))
    assert parse((tmp_path / "log").read_bytes()).margins == [0.25, None]


@pytest.mark.parametrize("packed", [True, False])
def test_margins_are_those_of_each_pair_alone_in_the_order_of_the_pairs(packed):
    scorer, pairs = Scorer(families.with_adapter("llama"), filler=0).choose(families.pairs()), families.pairs()
    scorer.packed = packed
    together = evaluate.measure(scorer, pairs, beta=0.1, batch_size=2)
    alone = [evaluate.measure(scorer, [pair], beta=0.1, batch_size=1).metrics["rewards/margins"] for pair in pairs]
    assert together.margins == pytest.approx(alone, abs=2e-5) and len(set(together.margins)) == len(pairs) > 2
    assert sum(margin > 0 for margin in together.margins) / len(pairs) == pytest.approx(together.metrics["rewards/accuracies"])


def looked(losses: list[float], kept: int | None = None) -> Summary:
    """A run of a step a look, whose held-out losses were these."""
    said = [events.Started("cpu", {}), events.Planned(10, 20, 4 * len(losses)),
            events.Evaluated(0, "base", {"loss": 0.75, "rewards/accuracies": 0.9, "n": 20})]
    for step in range(1, 4 * len(losses) + 1):
        said.append(events.Stepped(step, {"loss": 1.0, "rewards/margins": 0.1 * step}, memory=1))
        if step % 4 == 0:
            said.append(events.Evaluated(step, "tuned", {"loss": losses[step // 4 - 1], "rewards/accuracies": 0.9, "n": 20}))
    if kept:
        said += [events.Saved(4 * len(losses), "adapter"), events.Saved(kept, "adapter"),
                 events.Evaluated(kept, "tuned", {"loss": min(losses), "rewards/accuracies": 0.9})]
    return Summary(said)


def test_a_held_out_loss_that_rises_is_told_with_where_it_was_lowest():
    told = [remark.text for remark in explain.remarks(looked([0.8, 0.7, 0.75, 0.9]))]
    assert any("lowest at step 8 (0.7000) and has risen since (0.9000, base 0.7500; 20 pairs): the model is memorising" in text for text in told)
    for summary in (looked([0.9, 0.8, 0.7, 0.71]), looked([0.8, 0.7, 0.6]), looked([0.7, 0.9]), looked([0.8, 0.7, 0.9], kept=8)):
        assert not [remark for remark in explain.remarks(summary) if "memorising" in remark.text]


def test_a_resumed_run_s_measurements_count_once():
    summary = looked([0.8, 0.7, 0.6])
    again = Summary([*summary.said, events.Resumed(4), *[event for event in summary.said if getattr(event, "step", 0) > 4]])
    assert [look.step for look in again.looks] == [look.step for look in summary.looks] == [4, 8, 12]
