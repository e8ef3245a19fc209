"""The plan of a run: its optimizer steps, and what of the settings is fitted to its size.

The engine, the card above Start and every forecast take their figures from here, so that they cannot disagree.
"""

import math
from dataclasses import dataclass

from studio.settings import Settings, TrainingSettings

RULES = 2
"""The version of the rules by which a run is planned and its pairs are drawn; higher where the same settings give another run.

A run keeps the rules that it began with, and so resumes exactly. Version 1 drew pairs by a permutation of their number, held
out one pair at least, and took every warm-up as it was set.
"""

LEAST_HELD_OUT = 10
"""Fewer held-out pairs tell next to nothing: with all of 10 right the 95 % interval still begins at 72 %."""
MOST_HELD_OUT = 5
"""At most a fifth of the pairs is held out to reach LEAST_HELD_OUT."""
LONGEST_WARMUP, WARMUP = 0.5, 0.1
"""Warm-up steps that take more of a run than the first share are shortened to the second."""
ROUNDED_UP = 0.2
"""A share of warm-up is rounded up to whole steps, but not to more of the run than this (or than the share itself)."""
FEW_STEPS = 10
"""A run of fewer optimizer steps hardly changes the model, and says so."""


@dataclass(frozen=True)
class Plan:
    """A run's size: pairs to train on and held out, optimizer steps, of which `warmup` raise the learning rate; every how many
    steps it measures and seals a checkpoint (None for never). `remarks`: a sentence or two for each thing that was fitted to
    the size, or that the size makes worthless.
    """

    pairs: int
    held_out: int
    steps: int
    warmup: int
    measure_every: int
    checkpoint_every: int | None
    remarks: tuple[str, ...] = ()


def plan(settings: Settings, pairs: int, held_out: int, rules: int = RULES) -> Plan:
    """The plan for so many pairs, those that are trained on twice in an epoch counted twice."""
    training, steps = settings.training, steps_for(settings.training, pairs)
    checkpoint = _interval(training.checkpoint_every, steps) if training.checkpoint_every else None
    found = Plan(pairs, held_out, steps, warmup_for(training, steps, rules), _interval(settings.evaluation.every, steps), checkpoint)
    told = [_about_warmup(settings, found), _about_held_out(settings, found), _about_steps(settings, found), _about_intervals(found)]
    return Plan(**vars(found) | {"remarks": tuple(words for words in told if words) if rules > 1 else ()})


def steps_for(training: TrainingSettings, pairs: int) -> int:
    """Optimizer steps over so many pairs, counted as transformers' trainer does: the last step of an epoch may hold fewer pairs."""
    return training.max_steps or max(1, math.ceil(math.ceil(pairs / pairs_a_step(training)) * training.epochs))


def pairs_a_step(training: TrainingSettings) -> int:
    """Pairs of one optimizer step: the effective batch."""
    return training.batch_size * training.accumulation


def pairs_seen(training: TrainingSettings, pairs: int) -> int:
    """Pairs that a run computes, those seen again counted again."""
    whole = round(pairs * training.epochs)
    return min(whole, training.max_steps * pairs_a_step(training)) if training.max_steps else whole


def warmup_for(training: TrainingSettings, steps: int, rules: int = RULES) -> int:
    """Steps over which the learning rate rises from zero, in a run of `steps`. The first of them has a rate of zero."""
    wanted = training.warmup_steps
    if training.schedule == "constant":  # transformers has no warm-up there
        return 0
    if rules == 1:
        return int(wanted) if wanted >= 1 else math.ceil(steps * wanted)
    if 1 <= wanted <= LONGEST_WARMUP * steps:
        return int(wanted)
    share = wanted if wanted < 1 else WARMUP
    return min(math.ceil(share * steps), math.floor(max(share, ROUNDED_UP) * steps))


def held_out_for(total: int, share: float, rules: int = RULES) -> int:
    """How many of `total` pairs are kept away from training to measure on: at least LEAST_HELD_OUT, or none where even a fifth is one."""
    if share == 0:
        return 0
    if rules == 1:
        return min(max(1, round(total * share)), total - 1)
    count = min(max(round(total * share), min(LEAST_HELD_OUT, total // MOST_HELD_OUT)), total - 1)
    return count if count > 1 else 0


def _interval(every: float, steps: int) -> int:
    """Steps between two of something; below 1 `every` is a share of the run."""
    return max(1, round(every * steps if every < 1 else every))


# --- what is said -----------------------------------------------------------------------------------------------------


def _about_warmup(settings: Settings, found: Plan) -> str:
    wanted = warmup_for(settings.training, found.steps, rules=1)
    if wanted <= found.warmup:
        return ""
    how = f"is shortened from {_steps(wanted)} to {found.warmup:,}" if found.warmup else f"of {_steps(wanted)} is left out"
    return (f"The warm-up {how}: the run takes {_steps(found.steps)}, and the learning rate would "
            f"{'never rise above zero' if wanted >= found.steps == 1 else 'hardly have reached its full size'}.")


def _about_held_out(settings: Settings, found: Plan) -> str:
    share, total = settings.data.held_out, found.pairs + found.held_out
    asked = round(total * share)
    if share == 0 and not found.held_out:
        return ""
    if not found.held_out:
        why = f"{_pairs(total)} are too few to spare any" if held_out_for(total, share) == 0 else "none that could be is left"
        return f"No pair is held out, so nothing measures what the run has learned: {why}."
    if found.held_out == 1:
        return "One pair is held out, and one pair measures nothing: its result is right or wrong by chance. Hold out at least 10."
    few = f" Even {found.held_out} give wide intervals." if found.held_out < LEAST_HELD_OUT else ""
    if share > 0 and asked < found.held_out == held_out_for(total, share):
        return (f"{found.held_out:,} of {_pairs(total)} are held out instead of {asked:,}, which is the share of {share:g}: "
                f"fewer tell next to nothing.{few}")
    return f"Only {_pairs(found.held_out)} are held out: the intervals of the result will be wide." if few else ""


def _about_steps(settings: Settings, found: Plan) -> str:
    training = settings.training
    if training.max_steps or found.steps >= FEW_STEPS:
        return ""
    return (f"The run takes only {_steps(found.steps)} for {_pairs(found.pairs)}, {pairs_a_step(training):,} to a step: too few to change "
            "the model much. Use more pairs or more epochs, or lower the accumulation.")


def _about_intervals(found: Plan) -> str:
    if found.checkpoint_every and found.checkpoint_every >= found.steps > 1:
        return (f"No checkpoint is due: one is taken every {_steps(found.checkpoint_every)} and the run takes {found.steps:,}. "
                "A run that is cut off begins again; Stop keeps the work.")
    return ""


def _steps(count: int) -> str:
    return f"{count:,} step{'s' * (count != 1)}"


def _pairs(count: int) -> str:
    return f"{count:,} pair{'s' * (count != 1)}"
