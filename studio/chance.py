"""How far chance alone reaches: intervals of shares and means, and whether a split is more than the toss of a coin."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev

Z = 1.959963984540054
"""Of the normal distribution, 95 of 100 lie within so many standard deviations."""
ENOUGH = 0.05
"""What a chance must be below for a difference to be called one."""


def interval(those: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share: Wilson's score interval (J. Am. Stat. Assoc. 22, 1927), sound for few and for all as well."""
    if of == 0:
        return 0.0, 1.0
    share, spread = those / of, Z * Z / of
    middle = (share + spread / 2) / (1 + spread)
    reach = math.sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a mean, by the central limit theorem. `values`: two or more, finite."""
    middle, reach = fmean(values), Z * stdev(values) / math.sqrt(len(values))
    return middle - reach, middle + reach


def of_split(more: int, less: int) -> float:
    """The chance of a split at least so uneven if both sides were equally likely, from 0 to 1: the exact two-sided sign test.

    For pairs that changed one way or the other it is McNemar's test in its exact form (Psychometrika 12, 1947).
    """
    of, fewer = more + less, min(more, less)
    log_all = of * math.log(2)
    tail = math.fsum(math.exp(math.lgamma(of + 1) - math.lgamma(few + 1) - math.lgamma(of - few + 1) - log_all) for few in range(fewer + 1))
    return min(1.0, 2 * tail)
