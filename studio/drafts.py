"""What stands in the form of an open page, kept in the person's room so that a reload finds it again. Never a secret.

A page is known by an id that its browser drew; a new one begins with what the browser's last one held.
"""

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio import whole
from studio.settings import Choice, choices
from studio.source_choices import History, Values, is_plain

FOLDER = ".drafts"
KEPT = 30
"""Pages of which the draft is kept; those that were not used for longest go first."""
PAGE = re.compile(r"[0-9a-f]{32}")
LARGEST = 4 * 2**20
"""Characters of a draft; beyond them it is not kept."""


@dataclass(frozen=True)
class Draft:
    """A form as it was left: values by field name, the undo stack, the chosen preset, and what of it could not be kept, in words."""

    values: Values
    history: History = field(default_factory=list)
    preset: str = ""
    dropped: tuple[str, ...] = ()


def keep(root: Path, page: Any, values: Values, history: History, preset: str) -> None:
    """Keep what the form of a page says. Nothing happens for what is no page's id, or where nothing has changed."""
    if not isinstance(page, str) or not PAGE.fullmatch(page):
        return
    plain = {name: value for name, value in values.items() if is_plain(value)}
    kept = {"values": plain, "history": [change for change in history if all(map(is_plain, change.values()))], "preset": preset,
            "withheld": [name for name in values if name not in plain]}
    text = json.dumps(kept, ensure_ascii=True)
    path = root / FOLDER / f"{page}.json"
    if len(text) > LARGEST or (path.is_file() and path.read_text(encoding="utf-8") == text):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.write(path, text)
    for old in sorted(path.parent.glob("*.json"), key=lambda one: one.stat().st_mtime, reverse=True)[KEPT:]:
        old.unlink(missing_ok=True)


def found(root: Path, *pages: Any) -> Draft | None:
    """The draft of the first of these pages that has one. Values that this version's form cannot hold are dropped, and named."""
    for page in pages:
        if isinstance(page, str) and PAGE.fullmatch(page):
            try:
                return _read(json.loads((root / FOLDER / f"{page}.json").read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
                continue
    return None


def _read(kept: dict[str, Any]) -> Draft:
    known, values, dropped = {choice.name: choice for choice in choices()}, {}, []
    for name, value in kept["values"].items():
        if name in known and _fits(known[name], value):
            values[name] = value
        else:
            dropped.append(f"{known[name].label if name in known else str(name)[:60]} ({str(value)[:60]})")
    dropped += [f"{known[name].label} (it looks like a secret)" for name in kept.get("withheld", []) if name in known]
    history = [{name: value for name, value in change.items() if name in known and _fits(known[name], value)} for change in kept["history"]]
    return Draft(values, [change for change in history if change], str(kept.get("preset", "")), tuple(dropped))


def _fits(choice: Choice, value: Any) -> bool:
    """Whether a field can hold a value; one that is out of range is shown with its complaint, as it was."""
    if choice.options:
        return value in choice.options
    if choice.kind is bool:
        return isinstance(value, bool)
    if choice.kind in (int, float):
        return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value))
    return isinstance(value, str)
