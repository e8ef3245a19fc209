"""Ready-made Settings: the files of presets/, each a YAML whose first line says when to use it."""

import math
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from studio.settings import Settings

FOLDER = Path(__file__).resolve().parent.parent / "presets"
FIRST = "practice"
"""The preset a newcomer starts with."""


@dataclass(frozen=True)
class Preset:
    """One file of presets/. Its name is the file's; `purpose` is what the first line says."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.stem

    @cached_property
    def purpose(self) -> str:
        with open(self.path, encoding="utf-8") as lines:
            return lines.readline().lstrip("# ").strip()

    @cached_property
    def settings(self) -> Settings:
        """Raises SettingsError if the file has gone wrong."""
        return Settings.from_file(self.path)


@cache
def all_presets(folder: Path = FOLDER) -> dict[str, Preset]:
    """Presets by name, the practice first, then by the memory of the card they are for."""
    found = {path.stem: Preset(path) for path in folder.glob("*.yaml")}
    return dict(sorted(found.items(), key=lambda item: (item[0] != FIRST, _memory(item[0]), item[0])))


def _memory(name: str) -> float:
    """Gigabytes of the card that a preset is named after; infinite for any other."""
    stated = re.search(r"(\d{1,4})gb", name)
    return int(stated[1]) if stated else math.inf
