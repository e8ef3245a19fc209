"""Which of a pair answers on which side of Compare, and whether whoever votes may know it."""

import secrets
from dataclasses import dataclass, replace
from typing import Literal

Side = Literal["left", "right"]


@dataclass(frozen=True)
class Seats:
    """The first of the pair sits on the left, unless a blind talk has `exchanged` them: nobody is `told` so before the vote."""

    names: tuple[str, str] = ("Base", "Tuned")
    """What the first and the second are called."""
    blind: bool = False
    exchanged: bool = False
    told: bool = False

    def drawn(self) -> "Seats":
        """The same two in a blind talk, by lot."""
        return Seats(self.names, blind=True, exchanged=bool(secrets.randbelow(2)))

    @property
    def hidden(self) -> bool:
        return self.blind and not self.told

    def revealed(self) -> "Seats":
        return replace(self, told=True)

    def place(self, side: Side) -> int:
        """Which of the pair sits there: 0 for the first, 1 for the second."""
        return int((side == "right") != self.exchanged)

    def name(self, side: Side) -> str:
        return self.names[self.place(side)]

    def sorted(self, first, second) -> tuple:
        """What is the first's and the second's, as left and right; or what is left and right, as the first's and the second's."""
        return (second, first) if self.exchanged else (first, second)

    def label(self, side: Side) -> str:
        """What stands above a side's answers."""
        letter = "A" if side == "left" else "B"
        if self.hidden:
            return letter
        return f"{letter}: {self.name(side)}" if self.blind else self.name(side)

    def button(self, side: Side) -> str:
        """What the button says by which a side is preferred."""
        letter = "A" if side == "left" else "B"
        return f"{letter} is better" if self.blind else f"{self.name(side)} answered better"
