"""Files that a person brings: moved beside the runs under their content's hash, where they outlive the page's temporary ones."""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from studio import credentials
from studio.credentials import NOBODY
from studio.errors import DataError
from studio.jobs import PROJECT

FOLDER = ".uploads"
SECONDS = 300
"""Longest wait for a conversion; 2 GB take about one minute."""


def keep(root: Path, uploaded: Path) -> Path:
    """Where a file is kept from now on. It is moved, so that two gigabytes take the room of two."""
    with open(uploaded, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    kept = root / FOLDER / digest / uploaded.name
    kept.parent.mkdir(parents=True, exist_ok=True)
    draft = kept.with_name(f".{kept.name}")
    shutil.move(uploaded, draft)  # it may come from another file system
    draft.replace(kept)
    return kept


def kept(root: Path) -> list[Path]:
    """All kept files, the newest first."""
    found = [path for path in (root / FOLDER).glob("*/*") if not path.name.startswith(".")]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def is_kept(path: Path) -> bool:
    """Whether a path is that of a kept file, there or not."""
    return path.parent.parent.name == FOLDER


def discard(path: Path) -> bool:
    """Remove a kept file that cannot be used; True if it was one. A person's own files are never touched."""
    if not is_kept(path) or not path.is_file():
        return False
    shutil.rmtree(path.parent, ignore_errors=True)
    return True


def convert(root: Path, path: Path) -> Path:
    """A kept UTF-8 copy of a text in another encoding, which a short process recognises. Raises DataError."""
    with tempfile.TemporaryDirectory(dir=root) as folder:
        target = Path(folder) / path.name
        try:
            done = subprocess.run([sys.executable, "-m", "studio.engine.convert", str(path), str(target)], cwd=PROJECT,
                                  env=credentials.environment(NOBODY), capture_output=True, text=True, encoding="utf-8", timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise DataError(f"{path.name} was not converted within {SECONDS // 60} minutes. Save it as UTF-8 in the program "
                            "that it comes from.") from None
        answer = json.loads(done.stdout or "null") or {"error": f"Converting {path.name} ended without a word. Try again."}
        if "error" in answer:
            raise DataError(answer["error"])
        return keep(root, target)
