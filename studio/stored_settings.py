"""The settings of a run that is there already, whichever version of the studio wrote them.

`Settings` that a form makes are exact or refused. A run that was trained has settled that question: a setting that this version
does not have is passed over and named, and a number or choice beyond this version's limits is shown as it stands. What this
version cannot make sense of at all (a name that is a token, a list where a number belongs) is refused with its reason.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from studio import plain_yaml
from studio.complaints import BOUNDS, problems_of
from studio.errors import SettingsError, StudioError
from studio.settings import Settings

BEYOND = {*BOUNDS, "literal_error"}
"""Kinds of complaint about values that another version may have allowed."""
REMEMBERED = 1024
"""Files of which the settings stay in memory; about 10 kB each."""
LONGEST = 60
"""Characters of a value in a sentence."""


@dataclass(frozen=True)
class Stored:
    """What a settings file says.

    `unknown` are the settings by field name that this version does not have; they are not in `settings`. `beyond` are this
    version's complaints by field name about values that are in `settings` all the same.
    """

    settings: Settings
    unknown: dict[str, Any] = field(default_factory=dict)
    beyond: dict[str, str] = field(default_factory=dict)

    @property
    def is_exact(self) -> bool:
        """Whether this version could have written it."""
        return not self.unknown and not self.beyond

    def in_words(self) -> str:
        """What is not as this version would have it, in sentences; nothing where all is."""
        passed_over = ", ".join(f"{name} ({str(value)[:LONGEST]})" for name, value in self.unknown.items())
        told = f"Settings that this version does not have were passed over: {passed_over}. " if passed_over else ""
        kept = " ".join(f"{name}: {complaint}" for name, complaint in self.beyond.items())
        told += f"Settings that this version would not take are shown as they are. {kept}" if kept else ""
        return f"Another version of the studio made this run. {told}".strip() if told else ""

    def refuse_to_train(self) -> None:
        """Raises StudioError where a training by this version would not be the one that was asked for."""
        if not self.is_exact:
            raise StudioError(f"{self.in_words()} So it cannot be trained further as it began. "
                              "Start a new run with its settings, or with its adapter.")

    def refuse_to_load(self) -> None:
        """Raises StudioError where this version does not know how the base is to be loaded."""
        names = [name for name in self.beyond if name.startswith("model.")]
        if names:
            raise StudioError(f"Another version of the studio made this run, and this one does not know how to load its base. "
                              f"{names[0]}: {self.beyond[names[0]]}")


def of_values(values: dict[str, Any]) -> Stored:
    """What a mapping of sections says. Raises SettingsError where it makes no sense."""
    unknown = {name: value for name, value in values.items() if name not in Settings.model_fields}
    beyond: dict[str, str] = {}
    sections = {name: _section(name, info.annotation, values.get(name), unknown, beyond) for name, info in Settings.model_fields.items()}
    if beyond:
        return Stored(Settings.model_construct(**sections), unknown, beyond)
    try:
        return Stored(Settings(**sections), unknown)
    except SettingsError as error:  # sections that another version let go together
        return Stored(Settings.model_construct(**sections), unknown, error.problems)


def _section(name: str, kind: type, given: Any, unknown: dict[str, Any], beyond: dict[str, str]) -> Any:
    """One section; what is left out of it, and what is kept against this version's limits, is added to the last two."""
    given = {} if given is None else given
    if not isinstance(given, dict):
        raise SettingsError({name: "This section is not a mapping of settings. Choose another run."})
    unknown |= {f"{name}.{choice}": value for choice, value in given.items() if choice not in kind.model_fields}
    known, kept = {choice: value for choice, value in given.items() if choice in kind.model_fields}, {}
    try:
        return kind(**known)
    except ValidationError as error:
        for detail in error.errors():
            choice = detail["loc"][0] if detail["loc"] else ""
            if detail["type"] in BEYOND and isinstance(known.get(choice), bool | int | float | str):
                kept[choice] = known.pop(choice)
        complaints = {f"{name}.{choice}": text for choice, text in problems_of(error).items()}
    beyond |= {place: text for place, text in complaints.items() if place.removeprefix(f"{name}.") in kept}
    try:
        return kind(**known).model_copy(update=kept)
    except ValidationError as error:
        raise SettingsError({f"{name}.{choice}": text for choice, text in problems_of(error).items()}) from None


def of_file(path: Path) -> Stored:
    """What a settings file says, read once for as long as it stays the same. Raises SettingsError where it cannot be read."""
    try:
        found = path.lstat()
    except OSError as error:
        raise SettingsError({"file": f"{path.name} cannot be read ({error.strerror}). Choose another run."}) from error
    mark = found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size
    with _READING:
        known = _READ.get(path)
        if known is None or known[0] != mark:
            known = _READ[path] = mark, _read(path)
        _READ.move_to_end(path)
        if len(_READ) > REMEMBERED:
            _READ.popitem(last=False)
    if isinstance(known[1], SettingsError):
        raise SettingsError(known[1].problems)
    return known[1]


_READ: OrderedDict[Path, tuple[tuple, Stored | SettingsError]] = OrderedDict()
_READING = threading.Lock()


def _read(path: Path) -> Stored | SettingsError:
    try:
        return of_values(plain_yaml.mapping(plain_yaml.of_file(path)))
    except SettingsError as error:
        return error
    except (ValueError, TypeError, RecursionError) as error:  # whatever a foreign value does to its reader
        return SettingsError({"file": f"{path.name} holds a value that cannot be read ({type(error).__name__}). Choose another run."})
