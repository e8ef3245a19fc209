"""Which data somebody looked at: a file by its content's hash, a Hub dataset by its commit.

Row numbers mean something for these data alone. As text, one line for each source in its order:

    3f2a9c41d0be, 10233 bytes: support.csv
    0a1b2c3d4e5f, split test: owner/name
"""

import hashlib
import re
import stat
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from studio.errors import DataError
from studio.names import PRACTICE
from studio.practice import PAIRS as PRACTICE_PAIRS
from studio.preferences.mix import Part

DIGITS = 12
OF_OTHER_DATA = "The edits were made for"
"""Begins what is said where edits would be applied to data that they were not made for; the page then offers to remove them."""
GROWS = (".jsonl", ".ndjson", ".csv", ".tsv")
"""Files that may be continued at their end; the rows that were there keep their numbers."""
LINE = re.compile(rf"([0-9a-f]{{{DIGITS}}})(?:, (\d{{1,18}}) bytes)?(?:, (.+?))?: (.+)")


@dataclass(frozen=True)
class Fingerprint:
    """One source: the hash of its content or its commit, its size in bytes if it may grow, where in it the rows are, and its name."""

    digest: str
    size: int
    place: str
    name: str

    def __str__(self) -> str:
        where = f", {self.place}" if self.place else ""
        return f"{self.digest}{f', {self.size} bytes' if self.size else ''}{where}: {self.name}"


def parse(text: str) -> list[Fingerprint]:
    """What `str` wrote, one a line. Raises ValueError in two sentences for another text."""
    found = [LINE.fullmatch(line.strip()) for line in text.splitlines() if line.strip()]
    if not all(found):
        raise ValueError("This does not say which data the edits were made for. Empty it, or take it over from the settings "
                         "that the edits are from.")
    return [Fingerprint(one[1], int(one[2] or 0), one[3] or "", one[4]) for one in found]


def place(part: Part) -> str:
    """Where in a source the rows are: subset, split, and whatever else decides which row has which number."""
    elsewhere = dict.fromkeys(("source", "revision", "prompt", "chosen", "rejected", "vote", "encoding"), "")
    return str(replace(part, weight=1.0, **elsewhere)).removeprefix(", ")


def path_of(source: str) -> Path | None:
    """The file that a source is, or None for a dataset on the Hub."""
    return PRACTICE_PAIRS if source == PRACTICE else Path(source) if source.startswith("/") else None


def of(part: Part, commit: str = "") -> Fingerprint | None:
    """The fingerprint of one source; of a Hub dataset as read at `commit`. None where nothing is known of it.

    Raises OSError for a file that cannot be read.
    """
    path, name = path_of(part.source), " ".join(part.source.split())
    if path is None:
        return Fingerprint(commit[:DIGITS], 0, place(part), name) if re.fullmatch(r"[0-9a-f]{40}", commit) else None
    if path.is_dir():
        return Fingerprint(_of_folder(path), 0, place(part), name)
    size = path.stat().st_size if path.suffix.lower() in GROWS else 0
    return Fingerprint(of_file(path), size, place(part), " ".join(path.name.split()))


def _of_folder(folder: Path) -> str:
    """A fingerprint of the Arrow files below a folder, by their names and contents."""
    found = "".join(f"{path.relative_to(folder)} {of_file(path)}\n" for path in sorted(folder.rglob("*.arrow")))
    return hashlib.sha256(found.encode()).hexdigest()[:DIGITS]


def of_file(path: Path, most: int | None = None) -> str:
    """The first hexadecimal digits of the SHA-256 of a regular file's content, or of its first `most` bytes. Raises OSError."""
    known = path.stat()
    if not stat.S_ISREG(known.st_mode):
        raise OSError(f"{path.name} is not a file.")
    return _hashed(path, known.st_size, known.st_mtime_ns, known.st_ino, known.st_size if most is None else most)


@lru_cache(maxsize=64)
def _hashed(path: Path, size: int, changed: int, inode: int, most: int) -> str:
    digest, left = hashlib.sha256(), most
    with open(path, "rb") as file:
        while left > 0 and (piece := file.read(min(left, 2**20))):
            digest.update(piece)
            left -= len(piece)
    return digest.hexdigest()[:DIGITS]


def refuse_others(made_for: str, parts: list[Part], now: list[Fingerprint | None]) -> None:
    """Raises DataError where edits that were made for certain data would be applied to others. Sources may have been added at the end.

    `now` says of each part what it holds, None where that is not known.
    """
    for number, was in enumerate(parse(made_for)):
        found = now[number] if number < len(parts) else None
        if number >= len(parts):
            instead = "which is no longer among the sources"
        elif found is not None and not _has_the_same_rows(parts[number], was, found):
            instead = f"and these are {found}"
        else:
            continue
        raise DataError(f"{OF_OTHER_DATA} {was}, {instead}: their row numbers would change other pairs. "
                        "Choose those data again, or remove the edits.")


def _has_the_same_rows(part: Part, was: Fingerprint, now: Fingerprint) -> bool:
    """Whether the rows of `was` are still there, under the same numbers. A file's name does not matter, its content does."""
    path = path_of(part.source)
    if was.place != now.place or (path is None and was.name != now.name):
        return False
    if was.digest == now.digest or path is None:
        return was.digest == now.digest
    return 0 < was.size < now.size and of_file(path, was.size) == was.digest and _a_line_ends(path, was.size)


def _a_line_ends(path: Path, at: int) -> bool:
    with open(path, "rb") as file:
        file.seek(at - 1)
        return b"\n" in file.read(2)
