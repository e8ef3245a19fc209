"""Who answers on which side of Compare, and whether whoever votes may know it."""

import secrets
from dataclasses import dataclass, replace
from typing import Literal

Side = Literal["left", "right"]
Who = Literal["base", "tuned"]


@dataclass(frozen=True)
class Seats:
    """The base sits on the left, unless a blind talk has `exchanged` them. In a blind talk nobody is `told` so before the vote."""

    blind: bool = False
    exchanged: bool = False
    told: bool = False

    @classmethod
    def drawn(cls) -> "Seats":
        """Those of a blind talk, by lot."""
        return cls(blind=True, exchanged=bool(secrets.randbelow(2)))

    @property
    def hidden(self) -> bool:
        return self.blind and not self.told

    def revealed(self) -> "Seats":
        return replace(self, told=True)

    def who(self, side: Side) -> Who:
        """Who sits there."""
        return "tuned" if (side == "right") != self.exchanged else "base"

    def sorted(self, base, tuned) -> tuple:
        """What is the base's and tuned's, as left and right; or what is left and right, as base's and tuned's."""
        return (tuned, base) if self.exchanged else (base, tuned)

    def label(self, side: Side) -> str:
        """What stands above a side's answers."""
        letter = "A" if side == "left" else "B"
        if self.hidden:
            return letter
        return f"{letter}: {self.who(side)}" if self.blind else self.who(side).capitalize()

    def button(self, side: Side) -> str:
        """What the button says by which a side is preferred."""
        letter = "A" if side == "left" else "B"
        return f"{letter} is better" if self.blind else f"{self.who(side).capitalize()} answered better"
