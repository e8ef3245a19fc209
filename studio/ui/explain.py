"""What the curves mean, in plain words: short notes on a run's figures, the reassuring and the warning ones."""

from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from studio.events import Stepped
from studio.summary import Summary

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
    found = [_margin(first, latest), _both_fall(first, latest), _negative(latest), _memorised(latest, summary)]
    return [remark for remark in found if remark]


def verdict(summary: Summary) -> Remark | None:
    """The outcome on the held-out pairs, base against tuned, with their number."""
    base, tuned = summary.held_out("base"), summary.held_out("tuned")
    if not base or not tuned:
        return None
    count = round(tuned.get("n") or 0)
    before, after = base["rewards/accuracies"], tuned["rewards/accuracies"]
    said = (f"On {count:,} pairs it never saw, the model prefers the better answer in {100 * after:.1f} % "
            f"(before: {100 * before:.1f} %).")
    if after > before:
        return Remark("good", said)
    return Remark("warn", said + " That is no improvement: more pairs, more epochs or a higher learning rate may help.")


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


def _mean(steps: list[Stepped], name: str) -> float | None:
    values = [step.metrics[name] for step in steps if step.metrics.get(name) is not None]
    return fmean(values) if values else None
