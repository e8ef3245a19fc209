"""Several sources in one set: what each is, and how much of it is taken.

    HuggingFaceH4/ultrafeedback_binarized, split train_prefs, weight 0.5
    /data/ours.jsonl, weight 2

Each line is a source and what is to be known of it. Weights as in the alignment handbook's dataset mixer: a factor on
the number of pairs, so that what one source gives does not depend on how large the others are.
"""

import re
from dataclasses import dataclass, fields

from studio.errors import DataError

MOST = 100.0
"""Largest weight; whoever shows a pair more often wants more epochs."""


@dataclass(frozen=True)
class Part:
    """One source: a Hub dataset, a file or the practice pairs; where in it the rows are, and which columns are which."""

    source: str
    weight: float = 1.0
    subset: str = ""
    split: str = "train"
    revision: str = ""
    prompt: str = ""
    chosen: str = ""
    rejected: str = ""
    vote: str = ""
    encoding: str = ""

    def __str__(self) -> str:
        told = [f"{one.name} {f'{value:g}' if one.name == 'weight' else value}" for one in fields(self)[1:]
                if (value := getattr(self, one.name)) != one.default]
        return ", ".join([self.source, *told])

    def copies(self, chance: float) -> int:
        """How often a pair is taken whose chance, evenly drawn from 0 to 1, is this."""
        return int(self.weight) + (chance < self.weight % 1)


DETAILS = "|".join(one.name for one in fields(Part)[1:])


def parse(text: str) -> list[Part]:
    """The sources, one a line; a semicolon ends a line as well. Raises DataError naming the one that cannot be read."""
    return [_parsed(line.strip()) for line in re.split(r"[\n;]", text) if line.strip()]


def _parsed(line: str) -> Part:
    source, details = line, {}
    while found := _last_detail(source):
        source, name, value = found
        if name in details:
            raise DataError(f"“{line[:80]}” gives {name} twice. Give it once.")
        details[name] = value
    try:
        weight = float(details.pop("weight", "1"))
    except ValueError:
        weight = 0
    if not 0 < weight <= MOST:
        raise DataError(f"The weight of {source[:80]} is out of range. Enter a number above 0 and at most {MOST:g}, such as 0.5 for half.")
    return Part(source, weight, **details)


def _last_detail(text: str) -> tuple[str, str, str] | None:
    """What comes before the last detail, its name and its value. Commas in a file's own name end nothing."""
    before, comma, last = text.rpartition(",")
    found = re.fullmatch(rf"({DETAILS})\s+(.+)", last.strip()) if comma and before.strip() else None
    return (before.strip(), found[1], found[2]) if found else None
