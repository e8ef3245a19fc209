"""What a person chose for each source of pairs: edits, columns, split and the like, kept beside the runs.

All that a `Choice` declares to be `of_data` has its meaning from the source: another source has its own, and the first one's
come back with it. A source is its content (a file's hash) or its name on the Hub; edits belong to all sources in their order,
since row numbers go through them.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from studio import fingerprints, pasted, presets, whole
from studio.errors import DataError, StudioError
from studio.preferences import edits
from studio.preferences.mix import Part
from studio.redaction import redact
from studio.settings import PRACTICE, Choice, DataSettings, choices

FOLDER = ".choices"
KEPT = 200
"""Sources of which the choices are kept; those that were not used for longest go first."""
IN_FLIGHT_SECONDS = 3.0
"""How long what a page has sent may take to arrive."""
HASHED_BYTES = 2 * 10**9
"""A larger file is known by its path, size and time."""
SOURCE, EDITS, EDITS_FOR = "data.source", "data.edits", "data.edits_for"
OF_DATA: dict[str, Choice] = {choice.name: choice for choice in choices() if choice.of_data}
BY_SOURCE = tuple(name for name in OF_DATA if name not in (SOURCE, EDITS, EDITS_FOR))
"""What belongs to the first source; edits belong to all of them."""

Values = dict[str, Any]
History = list[Values]
"""The undo stack: for each change the values that were before it, by field name."""


@dataclass(frozen=True)
class Identity:
    """Whose choices the form shows: the first source, how the form names it, and all sources in order with where in them the rows are."""

    source: str
    form: str
    rows: tuple[str, ...]
    followed: tuple[float, Values] = field(default=(-math.inf, {}), compare=False)
    """When (`time.monotonic`) the form was given this source's choices, and its values until then, which a page may still send."""

    def supersedes(self, values: Values) -> bool:
        """Whether these are the values from the moment between choosing this source and being given its choices."""
        when, before = self.followed
        return time.monotonic() - when < IN_FLIGHT_SECONDS and all(values.get(name) == value for name, value in before.items())

    @property
    def name(self) -> str:
        """What the first source is called on the page."""
        return called(self.form)


def identity(values: Values, permitted: Callable[[DataSettings], Any] = lambda data: None) -> Identity | None:
    """Which sources the form's values name; None while they name none. `permitted` raises StudioError for what may not be read."""
    data = _data(values)
    if data is None:
        return None
    with suppress(StudioError):
        permitted(data)
        parts = data.parts
        first = _known(parts[0])
        return Identity(first, parts[0].source, tuple(" ".join((_known(part), fingerprints.place(part), part.revision))
                                                              for part in parts))
    return None


def _data(values: Values) -> DataSettings | None:
    """The data section, whatever else in it cannot be; None where the sources themselves cannot."""
    given = {name.removeprefix("data."): value for name, value in values.items() if name.startswith("data.")}
    try:
        return DataSettings(**given)
    except ValidationError as error:
        wrong = {str(one["loc"][0]) for one in error.errors() if one["loc"]}
        return None if wrong & {"source", "also"} else DataSettings(**{name: value for name, value in given.items() if name not in wrong})


def _known(part: Part) -> str:
    """A source by its content, or as it is called."""
    path = fingerprints.path_of(part.source)
    with suppress(OSError):
        if path is not None and (at := path.stat()).st_size <= HASHED_BYTES:
            return fingerprints.of_file(path)
        return part.source if path is None else f"{path} {at.st_size} {at.st_mtime_ns}"
    return part.source


def called(source: str) -> str:
    """What a source is called on the page."""
    return "the practice pairs" if source == PRACTICE else Path(source).name if source.startswith("/") else source


def marks(values: Values, permitted: Callable[[DataSettings], Any] = lambda data: None) -> str:
    """The fingerprints of the sources if all of them are files that may be read; else nothing."""
    data, found = _data(values), [None]
    with suppress(OSError, StudioError):
        if data is not None:
            permitted(data)
            found = [fingerprints.of(part) for part in data.parts]
    return "\n".join(map(str, found)) if all(found) else ""


def refuse_edits_of_other_data(data: DataSettings) -> None:
    """Raises DataError where it is known without the Hub that the edits were made for other data."""
    if data.edits and data.edits_for:
        with suppress(OSError):  # the worker will tell
            fingerprints.refuse_others(data.edits_for, data.parts, [fingerprints.of(part) for part in data.parts])


# --- kept and found again ---------------------------------------------------------------------------------------------


def defaults(source: str) -> Values:
    """What stands for a source, as the form names it, while nobody has chosen anything for it."""
    if source == PRACTICE:
        values = presets.all_presets()[presets.FIRST].settings.to_form()
        return {name: values[name] for name in BY_SOURCE}
    return {name: OF_DATA[name].default for name in BY_SOURCE}


def keep(root: Path, whose: Identity, values: Values, history: History) -> None:
    """Keep what the form says for its source. Nothing that looks like a secret is kept."""
    path, record = _path(root, whose.source), _record(root, whose.source)
    plain = {name: values[name] for name in BY_SOURCE if name in values and is_plain(values[name])}
    edited = {name: values.get(name) or "" for name in (EDITS, EDITS_FOR)}
    made = dict(record.get("edits", {}))
    made.pop(_key(whose.rows), None)
    if edited[EDITS] and is_plain(edited[EDITS]):
        made[_key(whose.rows)] = edited | {"history": history}
    now = {"choices": plain, "edits": made}
    if now == record or not (made or record or different(values)):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.write(path, json.dumps(now, ensure_ascii=True))
    for old in sorted(path.parent.glob("*.json"), key=lambda one: one.stat().st_mtime, reverse=True)[KEPT:]:
        old.unlink(missing_ok=True)


def found(root: Path, whose: Identity, source: str) -> Values:
    """What was chosen for a source, which the form names so; defaults where nothing was. Without the edits."""
    chosen = _record(root, whose.source).get("choices", {})
    return {name: chosen.get(name, default) for name, default in defaults(source).items()}


def edited(root: Path, whose: Identity) -> tuple[Values, History]:
    """The edits that were made for these sources and their undo stack, or those made for the most of them from the first on."""
    made = _record(root, whose.source).get("edits", {})
    for count in range(len(whose.rows), 0, -1):
        if one := made.get(_key(whose.rows[:count])):
            return {name: one.get(name, "") for name in (EDITS, EDITS_FOR)}, one.get("history", [])
    return {EDITS: "", EDITS_FOR: ""}, []


def different(values: Values) -> list[str]:
    """The choices that are not their source's defaults, in words: "3 edits", "Split", the edits first."""
    usual = defaults(values[SOURCE])
    told = [OF_DATA[name].label for name in BY_SOURCE if name in values and (values[name] or None) != (usual[name] or None)]
    text = values.get(EDITS) or ""
    try:
        count = len(edits.parse(text))
    except DataError:
        count = 1
    return ([f"{count} edit{'s' * (count > 1)}"] if count else []) + told


def is_plain(value: Any) -> bool:
    """Whether a value holds nothing that looks like a secret."""
    return not isinstance(value, str) or (redact(value) == value and not pasted.is_token(value))


def _key(rows: tuple[str, ...]) -> str:
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def _path(root: Path, source: str) -> Path:
    return root / FOLDER / f"{hashlib.sha256(source.encode()).hexdigest()[:16]}.json"


def _record(root: Path, source: str) -> dict[str, Any]:
    try:
        record = json.loads(_path(root, source).read_text(encoding="utf-8"))
        return record if isinstance(record, dict) and all(isinstance(part, dict) for part in record.values()) else {}
    except (OSError, ValueError, RecursionError):
        return {}


# --- another source ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Followed:
    """What the form should say now that its source is another: the changed values by name, the undo stack, whose all that is, in words."""

    values: Values
    history: History
    whose: Identity
    told: str


def follow(root: Path, before: Identity | None, values: Values, history: History,
           permitted: Callable[[DataSettings], Any] = lambda data: None) -> Followed | None:
    """What changes when the form names other sources than `before`; None if it does not. Their choices are kept."""
    now = identity(values, permitted)
    if now is None or now == before:
        return None
    if before is None:
        return Followed({}, history, now, "")
    keep(root, before, values | {SOURCE: before.form}, history)
    left, changed, source = different(values | {SOURCE: before.form}), {}, values[SOURCE]
    if now.source != before.source:
        changed = found(root, now, source)
        now = identity(values | changed, permitted) or now
    brought, history = edited(root, now)
    changed |= brought
    changed = {name: value for name, value in changed.items() if value != values.get(name)}
    if changed:
        now = replace(now, followed=(time.monotonic(), {name: values[name] for name in OF_DATA if name in values}))
    return Followed(changed, history, now, _told(before, now, values, left, different(values | changed), changed))


def _told(before: Identity, now: Identity, values: Values, left: list[str], brought: list[str], changed: Values) -> str:
    """What was put away and what came instead, for the person who may not have thought of it; nothing where nothing changed."""
    if not changed:
        return ""
    if before.source == now.source:  # only where in it, or what is mixed in
        left, brought = ([word for word in words if word[0].isdigit()] for words in (left, brought))
        was = f"{before.name} as it was chosen before"
    else:
        was = before.name
    secret = [OF_DATA[name].label for name in OF_DATA if not is_plain(values.get(name))]
    lost = f"Not kept, since it looks like a secret: {', '.join(secret)}. " if secret else ""
    away = f"Put away with {was}, and back when you choose it again: {', '.join(left)}. " if left else ""
    came = f"Brought back for {now.name}: {', '.join(brought)}." if brought else f"Nothing has been chosen for {now.name} yet."
    return away + lost + came
