"""What the curves mean, in plain words: short notes on a run's figures, the reassuring and the warning ones."""

from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from studio import chance
from studio.events import Stepped
from studio.held_out import Compared, compared, flattered
from studio.plan import LEAST_HELD_OUT
from studio.summary import Summary, percent, span

ENOUGH_LOOKS, RISEN = 3, 1.02
"""Measurements before anything is said of their course, and what a loss that has risen is of the lowest one, at least."""
LEARNED, NOT_LEARNED = 0.99, 0.9
"""Accuracy above which training pairs are told apart, and below which held-out ones are not."""
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
    found = compared(summary)
    told = [_margin(first, latest, summary, found), _both_fall(first, latest), _negative(latest),
            _memorised(latest, summary, found) or _rising(summary, found)]
    return [remark for remark in told if remark]


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
    if count == 1:
        return Remark("warn", "One pair was held out, and one pair measures nothing: whether it prefers the better answer there is chance. "
                              "Hold out at least 10.")
    said = (f"On {count:,} pairs it never saw, the model prefers the better answer in {100 * after:.1f} % "
            f"(before: {100 * before:.1f} %).")
    if after > before:
        apart = chance.interval(round(after * count), count)[0] > chance.interval(round(before * count), count)[1]
        return Remark("good", said) if apart else Remark("info", said + " On so few pairs chance alone could do that.")
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
    if highest < 0:
        return Remark("bad" if found.gained <= found.lost else "warn", said + " The margin has shrunk: what training pairs teach does not "
                      "carry over. Try fewer epochs, a lower learning rate or more pairs.")
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


def _margin(first: list[Stepped], latest: list[Stepped], summary: Summary, found: Compared | None) -> Remark | None:
    """What the margin does. Where held-out pairs were measured one by one, their interval decides, and not the training pairs."""
    before, now = _mean(first, "rewards/margins"), _mean(latest, "rewards/margins")
    if before is None or now is None:
        return None
    rises = now > before
    if found is not None:
        return _margin_found(found, rises)
    if not rises:
        return Remark("warn", "The margin is not rising on the training pairs. If it stays so, raise the learning rate, or check that "
                              "better and worse answers are not swapped.")
    base, tuned = (held and held.get("rewards/margins") for held in (summary.held_out("base"), summary.held_out("tuned")))
    said = "The margin is rising on the training pairs" + ("" if now > 0 else ", though still below zero")
    if base is None or tuned is None:
        none = "none are held out" if summary.plan and not summary.plan.held_out else "none have been measured yet"
        return Remark("info", f"{said}. Only held-out pairs show whether that carries over, and {none}.")
    count = round(summary.held_out("tuned").get("n") or 0)
    so_far = f"the {count:,} held-out pair{'s' * (count != 1)} so far ({base:.4f} before, {tuned:.4f} now)"
    if tuned <= base:
        return Remark("warn", f"{said}, but not on {so_far}: what it learns there does not carry over yet.")
    return Remark("info", f"{said} and on {so_far}. Whether that is more than chance is measured after the last step.")


def _margin_found(found: Compared, rises: bool) -> Remark:
    lowest, highest = found.margin_interval
    grown = f"by {abs(found.margin):.4f} on the {found.pairs:,} held-out pairs (95 % interval {lowest:+.4f} to {highest:+.4f})"
    if lowest > 0:
        return Remark("good", f"The margin has risen {grown}: the model tells good answers from bad ones that it never saw.")
    if highest < 0:
        also = ", although it rises on the training pairs: what it learns there does not carry over" if rises else ""
        return Remark("bad", f"The margin has fallen {grown}{also}. Fewer epochs, a lower learning rate or more pairs may help.")
    where = "rises on the training pairs, but" if rises else "does not rise on the training pairs, and"
    return Remark("warn", f"The margin {where} on the {found.pairs:,} held-out pairs its change cannot be told from chance "
                          f"(95 % interval {lowest:+.4f} to {highest:+.4f}).")


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


def _memorised(latest: list[Stepped], summary: Summary, found: Compared | None) -> Remark | None:
    """Training pairs told apart perfectly and held-out ones not: memorising only where the base did as well on these."""
    base, tuned, accuracy = summary.held_out("base"), summary.held_out("tuned"), _mean(latest, "rewards/accuracies")
    count = round((tuned or {}).get("n") or 0)
    if not base or accuracy is None or accuracy <= LEARNED or count < LEAST_HELD_OUT:
        return None
    before, after = base["rewards/accuracies"], tuned["rewards/accuracies"]
    if after >= NOT_LEARNED or chance.interval(round(after * count), count)[1] >= accuracy:
        return None
    said = (f"Training pairs are told apart perfectly, the {count:,} held-out ones in {percent(after)} "
            f"(base: {percent(before)})")
    if after > before or (found is not None and found.margin_interval[0] > 0):
        return Remark("info", f"{said}: part of what it learns carries over, part is the training pairs themselves.")
    return Remark("warn", f"{said}: the model is memorising. Fewer epochs or more pairs help.")


def _rising(summary: Summary, found: Compared | None) -> Remark | None:
    """A held-out loss that has left its lowest point behind: learned by heart, unless the held-out pairs prefer better all the same."""
    losses = [(look.metrics["loss"], look.step) for look in summary.looks if look.metrics.get("loss") is not None]
    base, count = summary.held_out("base") or {}, round((summary.held_out("tuned") or {}).get("n") or 0)
    if len(losses) < ENOUGH_LOOKS or summary.chosen_step is not None or count < LEAST_HELD_OUT:
        return None
    (lowest, step), (last, _) = min(losses), losses[-1]
    if last <= RISEN * lowest:
        return None
    of_base = f", base {base['loss']:.4f}" if base.get("loss") is not None else ""
    said = f"The held-out loss was lowest at step {step:,} ({lowest:.4f}) and has risen since ({last:.4f}{of_base}; {count:,} pairs)"
    keep = "Keep, under more about evaluation, can keep the best measurement."
    if (found is not None and found.margin_interval[0] > 0) or last < (base.get("loss") or 0):
        return Remark("info", f"{said}, while the model is still better on them than the base. {keep}")
    return Remark("warn", f"{said}: the model is memorising. Fewer epochs or more pairs help; {keep}")


def _mean(steps: list[Stepped], name: str) -> float | None:
    values = [step.metrics[name] for step in steps if step.metrics.get(name) is not None]
    return fmean(values) if values else None
