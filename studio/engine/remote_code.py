"""The Python files without which a model cannot be loaded: which they are, and whether this process may run them.

As a program (python -m studio.engine.remote_code, a request on standard input) it only reads them, for the page to show. They are run
by `model.load_base` alone, and only where the page hands over the hash of these very files of that repository at that commit.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from transformers import CONFIG_MAPPING

from studio import names
from studio.engine import snapshot
from studio.errors import StudioError, explain
from studio.remote_code import Code
from studio.settings import PRACTICE, ModelSettings

MOST, LARGEST = 64, 2**20
"""So many files, and characters of them all, can be looked at by a person."""
WHERE = "At the machine where the studio runs, look at it under Train, “Code that a model brings”, and allow it there if you trust it."


def needed(settings: ModelSettings, folder: Path) -> Code | None:
    """The code that the model in a folder cannot do without; None for one that transformers knows by itself.

    Raises StudioError for code of another repository, and for more of it than anybody would read.
    """
    config = snapshot.mapping(folder / "config.json", settings.name)
    named = config.get("auto_map")
    if not named or str(config.get("model_type")) in CONFIG_MAPPING:
        return None
    if "--" in json.dumps(named):
        raise StudioError(f"{settings.name} wants to run code of another repository, which the studio does not do. "
                          "Choose the repository that holds the code, or another model.")
    on_hub = settings.name != PRACTICE and not names.is_path(settings.name)
    return Code(settings.name, folder.name if on_hub else "", dict(_files(folder, settings.name)))


def is_allowed(code: Code | None, consent: frozenset[str]) -> bool:
    """Whether a person who was shown this very code has allowed it."""
    return code is not None and code.digest in consent


def refuse_unless_allowed(code: Code | None, consent: frozenset[str]) -> None:
    """Raises StudioError for code that a model needs and nobody has allowed."""
    if code is not None and not is_allowed(code, consent):
        raise StudioError(f"{code.model} needs to run code of its own. {WHERE}")


def _files(folder: Path, name: str) -> Iterator[tuple[str, str]]:
    left, paths = LARGEST, sorted(folder.rglob(snapshot.CODE[0]))
    if len(paths) > MOST:
        raise StudioError(f"{name} brings {len(paths)} Python files, more than anybody would read. Choose another model.")
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise StudioError(f"{path.name} of {name} cannot be read as text, so nobody can look at it. Choose another model.") from error
        left -= len(text)
        if left < 0:
            raise StudioError(f"{name} brings more code than anybody would read. Choose another model.")
        yield path.relative_to(folder).as_posix(), text


def look(asked: dict) -> dict:
    """What the page is told: the code, null for a model that needs none, or an error in words."""
    settings = ModelSettings(name=asked["name"], revision=asked["revision"])
    try:
        folder = snapshot.of(settings, asked["token"], weights=False, code=True)
        code = needed(settings, folder)
        return {"code": asdict(code) if code else None}
    except StudioError as error:
        return {"error": str(error)}
    except Exception as error:  # whatever the Hub's client raises
        return {"error": explain(error, settings.name)}


if __name__ == "__main__":
    print(json.dumps(look(json.load(sys.stdin))))
