"""What must be installed, looked at before anything is imported: an old library fails late and with other words."""

import re
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements.txt"
OLDEST = {"gradio": "6.31", "huggingface_hub": "1.33", "pydantic": "2", "torch": "2.11", "transformers": "5.17", "peft": "0.21",
          "datasets": "5.0.1"}
"""What the code has run with; newer ones may do."""


def missing() -> str:
    """Two sentences about what is not there or too old, or nothing."""
    found = {name: _installed(name) for name in (*OLDEST, *_named())}
    absent = [name for name, have in found.items() if have is None]
    old = [f"{name} {found[name]} (at least {least})" for name, least in OLDEST.items()
           if found[name] and _number(found[name]) < _number(least)]
    if not absent and not old:
        return ""
    told = "; ".join(filter(None, (f"missing: {', '.join(absent)}" if absent else "", f"too old: {', '.join(old)}" if old else "")))
    return f"The studio cannot start: {told}. Run pip install -r requirements.txt, or make run, which does it for you."


@dataclass(frozen=True)
class TorchBuild:
    """The installed torch's version, and that of the CUDA or ROCm for which it was built, empty where it was not."""

    version: str = ""
    cuda: str = ""
    hip: str = ""


@cache
def torch_build() -> TorchBuild:
    """As torch's file of versions says: importing it takes seconds."""
    package = find_spec("torch")
    file = Path(package.origin).with_name("version.py") if package and package.origin else None
    text = file.read_text(encoding="utf-8") if file and file.is_file() else ""
    said = dict(re.findall(r"^(__version__|cuda|hip)\b[^=\n]*= *'([^']*)'", text, re.MULTILINE))
    return TorchBuild(said.get("__version__", ""), said.get("cuda", ""), said.get("hip", ""))


def _named() -> list[str]:
    """The packages of requirements.txt."""
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    return [line.split("==")[0] for line in lines if "==" in line and not line.startswith("#")]


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _number(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text.split("+")[0])[:3])
