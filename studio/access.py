"""Who may use the studio, and as whom."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Visitor:
    """Somebody who may be here: a user who signed in, or, without a name, the person at this machine."""

    name: str = ""
    admin: bool = False
    """Sees everybody's runs and may stop them."""


LOCAL = Visitor(admin=True)
