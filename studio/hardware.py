"""What runs can be computed on for money: the hardware of Spaces as the Hub lists it, with its prices, and what is published of its chips.

Until the Hub has been asked, or where it cannot be, a table of list prices stands in, and says so.
"""

import os
import re
import threading
import time
from dataclasses import dataclass

from studio.fit import Kind

SHARE = 0.35
"""Of a card's published speed, what training usually reaches."""
CORE_TFLOPS = 0.025
"""What a CPU core reaches in float32: from 0.01 on an old laptop to 0.1 on a server."""

PUBLISHED = {"T4": 65, "L4": 121, "A10": 70, "L40S": 362, "A100": 312, "H100": 989, "H200": 989}
"""Dense 16-bit TFLOP/s by what a card's name says."""

BEFORE_AMPERE = {"T4"}
"""Cards of the table with a compute capability below 8.0."""

AN_HOUR = {"minute": 60, "hour": 1}
ASKED_AGAIN = 3600
"""Seconds after which the Hub is asked for its prices again."""


@dataclass(frozen=True)
class Hardware:
    """A Space's hardware: its name and the Hub's word for it, memory in bytes, dense 16-bit TFLOP/s as published, dollars an hour."""

    name: str
    slug: str
    memory: int
    tflops: float
    dollars: float
    kind: Kind = "cuda"


def of_cores(count: int) -> float:
    """TFLOP/s of so many CPU cores, as a card of that speed would have them published."""
    return count * CORE_TFLOPS / SHARE


TABLE = (
    Hardware("CPU basic", "cpu-basic", 16 * 10**9, of_cores(2), 0.00, "cpu"),
    Hardware("CPU upgrade", "cpu-upgrade", 32 * 10**9, of_cores(8), 0.03, "cpu"),
    Hardware("T4 small", "t4-small", 16 * 10**9, 65, 0.40, "cuda before Ampere"),
    Hardware("T4 medium", "t4-medium", 16 * 10**9, 65, 0.60, "cuda before Ampere"),
    Hardware("L4", "l4x1", 24 * 10**9, 121, 0.80),
    Hardware("A10G small", "a10g-small", 24 * 10**9, 70, 1.00),
    Hardware("A10G large", "a10g-large", 24 * 10**9, 70, 1.50),
    Hardware("L40S", "l40sx1", 48 * 10**9, 362, 1.80),
    Hardware("A100 large", "a100-large", 80 * 10**9, 312, 2.50),
)
"""Upgraded Spaces with one card at their list prices of 2025."""
PRICES_OF_TABLE, PRICES_OF_HUB = "list prices of 2025 that change", "the prices that the Hub lists now"


class Prices:
    """The hardware of Spaces, asked of the Hub in the background: nobody who fills a form waits for it."""

    def __init__(self):
        self.spaces, self.source = TABLE, PRICES_OF_TABLE
        self._asked, self._changing = float("-inf"), threading.Lock()

    def refresh(self, token: str | None = None) -> threading.Thread | None:
        """Ask the Hub unless that was done within the hour. The thread that asks, or None."""
        with self._changing:
            if time.monotonic() - self._asked < ASKED_AGAIN:
                return None
            self._asked = time.monotonic()
        thread = threading.Thread(target=self._ask, args=[token], daemon=True, name="prices")
        thread.start()
        return thread

    def _ask(self, token: str | None) -> None:
        from huggingface_hub import HfApi

        try:
            listed = HfApi().list_spaces_hardware(token=token or False)
            found = tuple(one for one in map(_of_hub, listed) if one is not None)
        except Exception:  # whatever the Hub's client raises: the table stays, and says what it is
            return
        if found:
            self.spaces, self.source = found, PRICES_OF_HUB

    def of_this_space(self) -> Hardware | None:
        """The hardware that a Space says it runs on, in ACCELERATOR; None elsewhere, and for one that is not known."""
        slug = os.environ.get("ACCELERATOR", "")
        return next((one for one in self.spaces if one.slug == slug), None)


PRICES = Prices()


def published(card: str) -> float | None:
    """The published speed of a card by its name; None for one that is not in the table."""
    return next((speed for name, speed in PUBLISHED.items() if _is_called(card, name)), None)


def _is_called(card: str, name: str) -> bool:
    return any(word.upper() in (name, name + "G") for word in card.replace("-", " ").split())


def _of_hub(listed) -> Hardware | None:
    """An entry of the Hub's list (huggingface_hub's JobHardwareInfo); None for several cards, of which a run uses one, and unknown ones."""
    dollars, card = listed.unit_cost_usd * AN_HOUR[listed.unit_label], listed.accelerator
    if card is None:
        return Hardware(listed.pretty_name, listed.name, _bytes(listed.ram), of_cores(_number(listed.cpu)), dollars, "cpu")
    tflops = published(card.model)
    if tflops is None or _number(str(card.quantity)) != 1:
        return None
    kind: Kind = "cuda before Ampere" if any(_is_called(card.model, name) for name in BEFORE_AMPERE) else "cuda"
    return Hardware(listed.pretty_name, listed.name, _bytes(card.vram), tflops, dollars, kind)


def _number(text: str) -> int:
    return int(re.search(r"\d+", text)[0])


def _bytes(text: str) -> int:
    return _number(text) * {"T": 10**12}.get(text.replace(" ", "").lstrip("0123456789.")[:1].upper(), 10**9)
