"""What the held-out pairs say of base against tuned: the same pairs, before and after, and how far chance alone reaches."""

from dataclasses import dataclass

from studio import chance
from studio.summary import Summary


@dataclass(frozen=True)
class Compared:
    """Base and tuned on the same `pairs` held-out pairs.

    `before` and `after` are shares of pairs in which the better answer is the likelier one, token for token, each with its 95 %
    interval. `gained` pairs came to prefer the better answer, `lost` no longer do; `by_chance` is how likely so uneven a split
    is if training did nothing. `margin` is what the reward margin grew by on average, with its 95 % interval.
    """

    pairs: int
    before: float
    before_interval: tuple[float, float]
    after: float
    after_interval: tuple[float, float]
    gained: int
    lost: int
    by_chance: float
    margin: float
    margin_interval: tuple[float, float]

    @property
    def is_clear(self) -> bool:
        """Whether the change of the preference is more than chance would do."""
        return self.by_chance < chance.ENOUGH


def flattered(summary: Summary) -> str:
    """What to say where the held-out pairs have chosen the step that they measure; nothing where it is the last one."""
    step = summary.chosen_step
    return f"Step {step:,} was chosen by these same pairs, which flatters it a little." if step is not None else ""


def compared(summary: Summary) -> Compared | None:
    """The last measurement against that of the base; None while there are not both, pair by pair, or not two pairs."""
    base, tuned = (found.margins if (found := summary.measured(model)) else () for model in ("base", "tuned"))
    if len(base) != len(tuned) or len(base) < 2 or None in base or None in tuned:
        return None
    pairs, rights = len(base), [(before > 0, after > 0) for before, after in zip(base, tuned, strict=True)]
    before, after = (sum(each) for each in zip(*rights, strict=True))
    gained, lost = rights.count((False, True)), rights.count((True, False))
    grown = [now - then for then, now in zip(base, tuned, strict=True)]
    return Compared(pairs, before / pairs, chance.interval(before, pairs), after / pairs, chance.interval(after, pairs),
                    gained, lost, chance.of_split(gained, lost), sum(grown) / pairs, chance.mean_interval(grown))
