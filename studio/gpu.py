"""Which cards this machine has and how much is free, asked of the driver: the page itself never loads torch."""

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psutil

from studio.errors import NoSpaceError, StudioError
from studio.fit import Kind
from studio.installed import TorchBuild, torch_build
from studio.settings import PRACTICE, Settings
from studio.summary import size

FIELDS = "uuid,name,memory.total,memory.used,driver_version"
QUERIES = [["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"] for fields in (f"{FIELDS},compute_cap", FIELDS)]
"""The second for older drivers, which reject a query for compute_cap."""
APPS = ["nvidia-smi", "--query-compute-apps=pid,process_name,used_memory", "--format=csv,noheader,nounits"]
SMALLEST_FREE = 200 * 10**6
"""Bytes below which no run is begun: its log, adapter and held-out pairs need some room."""
VISIBLE, ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"
OLDEST_DRIVERS = {11: 450, 12: 525, 13: 580}
"""Minimum Linux driver by CUDA major version (NVIDIA, CUDA compatibility, minor version compatibility)."""


@dataclass(frozen=True)
class Card:
    """One GPU. Memory in bytes."""

    name: str
    total: int
    used: int
    uuid: str = ""
    driver: str = ""
    """The version of the machine's driver."""
    capability: float = 0.0
    """Compute capability, such as 8.6; 0 if the driver does not report it."""

    @property
    def kind(self) -> Kind:
        return "cuda before Ampere" if 0 < self.capability < 8 else "cuda"

    @property
    def free(self) -> int:
        return self.total - self.used


@dataclass(frozen=True)
class Place:
    """Where a run would compute: on a card or on the CPU, by name, with the free memory in bytes."""

    kind: Kind
    name: str
    free: int


def place(settings: Settings) -> Place | None:
    """Where these settings would compute here; None when they ask for a GPU and there is none."""
    card = the_one(cards()) if settings.model.device != "cpu" else None
    if card is not None:
        return Place(card.kind, card.name, card.free)
    return None if settings.model.device == "gpu" else Place("cpu", "cpu", free_ram())


def free_ram() -> int:
    """Bytes of this machine's memory that a process can have."""
    return psutil.virtual_memory().available


def cards() -> list[Card]:
    """The NVIDIA cards of this machine that CUDA_VISIBLE_DEVICES shows; none when the driver is not there or does not answer."""
    lines = next(filter(None, map(_asked, QUERIES)), [])
    rows = ([*(part.strip() for part in line.split(",")), ""] for line in lines)
    return _visible([Card(row[1], int(row[2]) * 2**20, int(row[3]) * 2**20, uuid=row[0], driver=row[4], capability=_number(row[5]))
                     for row in rows if len(row) > 5 and row[2].isdigit() and row[3].isdigit()])


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _visible(found: list[Card]) -> list[Card]:
    """The cards that a process with this environment would see, in its order."""
    shown = os.environ.get(VISIBLE)
    if shown is None or "MIG-" in shown:  # a MIG instance, which this query does not list
        return found
    chosen = []
    for part in map(str.strip, shown.split(",")):
        named = found[int(part) : int(part) + 1] if part.isdigit() else [card for card in found if part and card.uuid.startswith(part)]
        if len(named) != 1:
            break  # like CUDA, which ignores everything after an invalid entry
        chosen += named
    return chosen


def the_one(found: list[Card]) -> Card | None:
    """The card that a worker uses: the one with the most free memory, or the first if CUDA may number the cards differently."""
    return max(found, key=lambda card: card.free, default=None) if not _is_unsure(found) else found[0]


def _is_unsure(found: list[Card]) -> bool:
    """Whether CUDA_VISIBLE_DEVICES has numbers and the cards differ: CUDA numbers the fastest first, the driver by PCI slot."""
    numbered = any(part.strip().isdigit() for part in os.environ.get(VISIBLE, "").split(","))
    return numbered and os.environ.get(ORDER) != "PCI_BUS_ID" and len({card.name for card in found}) > 1


def take_one() -> None:
    """Restrict this process to one card, before CUDA is initialized: transformers would otherwise train on all visible ones."""
    found = cards()
    card = the_one(found)
    if len(found) > 1 and card is not None and card.uuid and not _is_unsure(found):
        os.environ[VISIBLE] = card.uuid


def unused(found: list[Card], torch: TorchBuild) -> str:
    """Why this torch build cannot use the machine's cards, and what to do, judged by versions; empty if it can."""
    if not found or torch.hip:
        return ""
    card = found[0]
    if not torch.cuda:
        why, then = "was built without CUDA", "Install a torch that is built for CUDA"
    elif (oldest := OLDEST_DRIVERS.get(_major(torch.cuda), 0)) > _major(card.driver) > 0:
        why = f"was built for CUDA {torch.cuda}, which needs a driver of version {oldest} or newer, and this machine's is {card.driver}"
        then = "Update the driver, or install a torch that is built for an older CUDA"
    else:
        return ""
    return f"This machine has an {card.name} that torch cannot use: torch {torch.version} {why}. {then}; or set Device to cpu."


def _major(version: str) -> int:
    first = version.partition(".")[0]
    return int(first) if first.isdigit() else 0


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
        if words := unused(found, torch_build()):
            return words
        listed = ", ".join(f"{card.name} ({size(card.free)} of {size(card.total)} free)" for card in found)
        several = f" A run uses one of them, currently the {the_one(found).name}." if len(found) > 1 else ""
        return f"This machine has {listed}.{several}"
    memory = size(psutil.virtual_memory().total)
    return (f"This machine has no GPU that the studio can use: runs compute on {os.cpu_count()} CPU cores with {memory} of memory. "
            "The practice preset is made for that.")


def refuse_what_cannot_start(settings: Settings, root: Path, on_disk: float = 0) -> None:
    """Raises StudioError before a run is created, for what the page can already know about this machine.

    `on_disk` is what the run's adapter and checkpoints take, in bytes, as far as that is known.
    """
    found = cards() if settings.model.device != "cpu" else []
    if settings.model.device == "gpu" and not found and not Path("/dev/kfd").exists():
        raise StudioError("A GPU was asked for and this machine has none. "
                          "Set Device to auto or cpu, or start the studio on a machine with a GPU.")
    if (words := unused(found, torch_build())) and settings.model.name != PRACTICE:
        raise StudioError(words)
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
