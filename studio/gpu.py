"""Which cards this machine has and how much is free, asked of the driver: the page itself never loads torch."""

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from studio.errors import NoSpaceError, StudioError
from studio.settings import Settings
from studio.summary import size

QUERY = ["nvidia-smi", "--query-gpu=name,memory.total,memory.used", "--format=csv,noheader,nounits"]
APPS = ["nvidia-smi", "--query-compute-apps=pid,process_name,used_memory", "--format=csv,noheader,nounits"]
SMALLEST_FREE = 200 * 10**6
"""Bytes below which no run is begun: its log, adapter and held-out pairs need some room."""


@dataclass(frozen=True)
class Card:
    """One GPU. Memory in bytes."""

    name: str
    total: int
    used: int


@dataclass(frozen=True)
class Place:
    """Where a run would compute: on a card or on the CPU, by name, with the free memory in bytes."""

    kind: Literal["cpu", "cuda"]
    name: str
    free: int


def place(settings: Settings) -> Place | None:
    """Where these settings would compute here; None when they ask for a GPU and there is none."""
    found = cards() if settings.model.device != "cpu" else []
    if found:
        return Place("cuda", found[0].name, found[0].total - found[0].used)
    return None if settings.model.device == "gpu" else Place("cpu", "cpu", psutil.virtual_memory().available)


def cards() -> list[Card]:
    """The NVIDIA cards of this machine; none when the driver is not there or does not answer."""
    return [Card(name.strip(), int(total) * 2**20, int(used) * 2**20)
            for name, total, used in (line.split(",") for line in _asked(QUERY) if line.count(",") == 2)]


def _asked(query: list[str]) -> list[str]:
    """The lines of the driver's answer; none when it is not there or does not answer."""
    if shutil.which(query[0]) is None:
        return []
    try:
        return subprocess.run(query, capture_output=True, text=True, encoding="utf-8", timeout=5, check=True).stdout.splitlines()
    except (subprocess.SubprocessError, OSError):
        return []


@dataclass(frozen=True)
class Other:
    """A process that is not the studio's and holds memory on a card, in bytes."""

    pid: int
    name: str
    user: str
    memory: int


def others() -> list[Other]:
    """Who else computes on the cards of this machine. They are named and left alone."""
    found = []
    for line in _asked(APPS):
        pid, name, used = (part.strip() for part in line.split(",")[:3]) if line.count(",") >= 2 else ("", "", "")
        if not pid.isdigit():
            continue
        try:
            process = psutil.Process(int(pid))
            if any(part.startswith("studio.engine.") for part in process.cmdline()):
                continue
            user = process.username()
        except psutil.Error:
            user = "an unknown user"
        found.append(Other(int(pid), Path(name).name, user, int(used) * 2**20 if used.isdigit() else 0))
    return found


def others_in_words(found: list[Other]) -> str:
    """A sentence about them and what to do, or nothing."""
    if not found:
        return ""
    named = "; ".join(f"{other.name} of {other.user} (process {other.pid}, {size(other.memory)})" for other in found[:3])
    return f"Something else computes on this machine's GPU: {named}. Wait until it has ended, or expect less memory and speed."


def in_words(found: list[Card]) -> str:
    """This machine in a sentence."""
    if found:
        listed = ", ".join(f"{card.name} ({size(card.total - card.used)} of {size(card.total)} free)" for card in found)
        return f"This machine has {listed}."
    memory = size(psutil.virtual_memory().total)
    return (f"This machine has no GPU that the studio can use: runs compute on {os.cpu_count()} CPU cores with {memory} of memory. "
            "The practice preset is made for that.")


def refuse_what_cannot_start(settings: Settings, root: Path, on_disk: float = 0) -> None:
    """Raises StudioError before a run is created, for what the page can already know about this machine.

    `on_disk` is what the run's adapter and checkpoints take, in bytes, as far as that is known.
    """
    if settings.model.device == "gpu" and not cards() and not Path("/dev/kfd").exists():
        raise StudioError("A GPU was asked for and this machine has none. "
                          "Set Device to auto or cpu, or start the studio on a machine with a GPU.")
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise StudioError(f"The folder {root} cannot be written ({error.strerror}). "
                          "Let the studio write there, or start it with --runs on another folder.") from error
    free, needed = shutil.disk_usage(root).free, SMALLEST_FREE + on_disk
    if free < needed:
        raise NoSpaceError(f"Only {size(free)} are free in {root} and this run needs {size(needed)} there. "
                           "Free some space, keep fewer checkpoints, or start the studio with --runs on a larger disk.")
