"""What the curves mean, in plain words: short notes on a run's figures, the reassuring and the warning ones."""

from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from studio.events import Stepped
from studio.held_out import Compared, compared, flattered
from studio.summary import Summary, percent, span

ENOUGH_LOOKS, RISEN = 3, 1.02
"""Measurements before anything is said of their course, and what a loss that has risen is of the lowest one, at least."""
ENOUGH_STEPS = 10
"""Steps before anything is said about a trend."""


@dataclass(frozen=True)
class Remark:
    """One sentence or two about a run, and whether it is good news, a warning or neither."""

    kind: Literal["good", "warn", "bad", "info"]
    text: str


def remarks(summary: Summary) -> list[Remark]:
    """What a person should know about the curves so far, most telling first."""
    if len(summary.steps) < ENOUGH_STEPS:
        return []
    first, latest = summary.steps[: max(3, len(summary.steps) // 5)], summary.steps[-max(3, len(summary.steps) // 5):]
    found = [_margin(first, latest), _both_fall(first, latest), _negative(latest), _memorised(latest, summary) or _rising(summary)]
    return [remark for remark in found if remark]


def verdict(summary: Summary) -> Remark | None:
    """The outcome on the held-out pairs, base against tuned, with their number and how far chance reaches."""
    base, tuned = summary.held_out("base"), summary.held_out("tuned")
    if not base or not tuned:
        return None
    found = compared(summary)
    if found is not None:
        remark, chosen = _paired(found), flattered(summary)
        return Remark(remark.kind, f"{remark.text} {chosen}") if chosen else remark
    count = round(tuned.get("n") or 0)
    before, after = base["rewards/accuracies"], tuned["rewards/accuracies"]
    said = (f"On {count:,} pairs it never saw, the model prefers the better answer in {100 * after:.1f} % "
            f"(before: {100 * before:.1f} %).")
    if after > before:
        return Remark("good", said)
    return Remark("warn", said + " That is no improvement: more pairs, more epochs or a higher learning rate may help.")


def _paired(found: Compared) -> Remark:
    """The same where every pair was measured before and after: with intervals, and whether chance alone could do it."""
    before, after = (f"{percent(share)} (95 % interval {span(ends)})" for share, ends in ((found.before, found.before_interval),
                                                                                (found.after, found.after_interval)))
    lowest, highest = found.margin_interval
    said = (f"On {found.pairs:,} pairs it never saw, the model prefers the better answer in {after}, before in {before}. {_changed(found)}"
            f"The reward margin changed by {found.margin:+.4f} on average (95 % interval {lowest:+.4f} to {highest:+.4f}).")
    if found.is_clear and found.lost > found.gained:
        return Remark("bad", said + " Training made it worse: see under Data whether answers are exchanged, and try a lower learning rate.")
    if found.is_clear or (lowest > 0 and found.before == 1):
        return Remark("good", said)
    if lowest > 0:
        return Remark("info", said + " Hold out more pairs to see whether the preference moved.")
    return Remark("warn", said + " That is no improvement: more pairs, more epochs or a higher learning rate may help.")


def _changed(found: Compared) -> str:
    if not found.gained and not found.lost:
        return "No pair changed sides. "
    told = f"{found.gained:,} pair{'s' * (found.gained != 1)} changed for the better, {found.lost:,} for the worse"
    return f"{told}, more than chance would do. " if found.is_clear else f"{told}, which chance alone could do. "


def _margin(first: list[Stepped], latest: list[Stepped]) -> Remark | None:
    before, now = _mean(first, "rewards/margins"), _mean(latest, "rewards/margins")
    if before is None or now is None:
        return None
    if now > before and now > 0:
        return Remark("good", "The margin is rising: the model tells good answers from bad ones.")
    if now > before:
        return Remark("info", "The margin is rising but still below zero: the model begins to tell good answers from bad ones.")
    return Remark("warn", "The margin is not rising. If it stays so, raise the learning rate, or check that "
                          "better and worse answers are not swapped.")


def _both_fall(first: list[Stepped], latest: list[Stepped]) -> Remark | None:
    """The chosen answers becoming less likely is ORPO gone too fast: its likelihood part should lift them."""
    before, now = _mean(first, "logps/chosen"), _mean(latest, "logps/chosen")
    if before is not None and now is not None and now < before - 0.1 * abs(before):
        return Remark("warn", "The better answers are becoming less likely too. A lower learning rate keeps them up.")
    return None


def _negative(latest: list[Stepped]) -> Remark | None:
    reward = _mean(latest, "rewards/chosen")
    if reward is not None and reward < 0:
        return Remark("info", "Rewards are log-probabilities times beta, so they are always below zero. "
                              "What counts is the distance between the two, the margin.")
    return None


def _memorised(latest: list[Stepped], summary: Summary) -> Remark | None:
    tuned, accuracy = summary.held_out("tuned"), _mean(latest, "rewards/accuracies")
    if tuned and accuracy is not None and accuracy > 0.99 and tuned["rewards/accuracies"] < 0.9:
        return Remark("warn", "Training pairs are told apart perfectly but held-out ones are not: the model is memorising. "
                              "Fewer epochs or more pairs help.")
    return None


def _rising(summary: Summary) -> Remark | None:
    """A held-out loss that has left its lowest point behind: from there on a run learns its own pairs by heart."""
    losses = [(look.metrics["loss"], look.step) for look in summary.looks if look.metrics.get("loss") is not None]
    if len(losses) < ENOUGH_LOOKS or summary.chosen_step is not None:
        return None
    (lowest, step), (last, _) = min(losses), losses[-1]
    if last <= RISEN * lowest:
        return None
    return Remark("warn", f"The held-out loss was lowest at step {step:,} ({lowest:.4f}) and has risen since ({last:.4f}): the model is "
                          "memorising. Fewer epochs or more pairs help; Keep, under more about evaluation, can keep the best measurement.")


def _mean(steps: list[Stepped], name: str) -> float | None:
    values = [step.metrics[name] for step in steps if step.metrics.get(name) is not None]
    return fmean(values) if values else None
