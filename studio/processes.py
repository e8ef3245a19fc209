"""Which process works on a folder, known again for certain: a pid is reused, a pid with its start time and boot is not."""

import fcntl
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import psutil

from studio import whole

FILE, LOCK, KEEPER = "worker.json", ".working", "keeper.json"
"""Which process works on a folder; what it has locked meanwhile; which page keeps the token that its worker is to be handed."""
PATIENCE = 2.0
"""Seconds for which a worker tries for its lock: a page that looks whether it is taken has it for a moment."""
BOOT = Path("/proc/sys/kernel/random/boot_id")
HERE = threading.RLock()


@dataclass(frozen=True)
class Worker:
    """One process: its pid, when it started as `birth` tells it, and in which boot of the machine."""

    pid: int
    started: float
    boot: str = ""

    @property
    def alive(self) -> bool:
        """Whether that very process lives; never true of pid 1, of ourselves, or of a number that is no process of ours to be."""
        return self._process() is not None

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to that very process and what it has started; to nobody if it has gone."""
        process = self._process()
        if process is None:
            return
        with suppress(psutil.Error):
            for one in (process, *process.children(recursive=True)):
                with suppress(psutil.Error):
                    one.send_signal(number)

    def _process(self) -> psutil.Process | None:
        if self.pid <= 1 or self.pid == os.getpid() or self.boot != boot():
            return None
        with suppress(psutil.Error, OSError, ValueError, OverflowError):
            process = psutil.Process(self.pid)
            if birth(self.pid) == self.started and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None


def of(pid: int) -> Worker:
    """The identity of a process that was just launched."""
    try:
        return Worker(pid, birth(pid), boot())
    except (psutil.NoSuchProcess, OSError):
        return Worker(pid, -1.0, boot())


def birth(pid: int) -> float:
    """When a process began: on Linux in clock ticks since the boot, which setting the clock does not move. Raises OSError or psutil's."""
    stat = Path(f"/proc/{pid}/stat")
    if stat.parent.parent.joinpath("self").exists():
        return float(stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19])
    return psutil.Process(pid).create_time()


def boot() -> str:
    """This boot of the machine; empty where there is no telling."""
    try:
        return BOOT.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def me() -> Worker:
    """This process."""
    return of(os.getpid())


def write(folder: Path, worker: Worker, file: str = FILE) -> None:
    """Note whose work a folder is, whole or not at all."""
    whole.write(folder / file, json.dumps(asdict(worker)))


def read(folder: Path, file: str = FILE) -> Worker | None:
    """Whose work it is; None where nobody was noted, and a process that never was where the note cannot be read."""
    try:
        noted = whole.read_json(folder / file)
        found = Worker(**noted)
        if type(found.pid) is int and isinstance(found.started, int | float) and isinstance(found.boot, str):
            return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):
        pass
    return Worker(0, -1.0)


def take(folder: Path) -> IO | None:
    """The open lock of a job's folder, which its worker keeps for as long as it works, or None where another worker has it.

    The system lets go of it with the process, however that ends. On a file system without locks nobody is kept out.
    """
    lock = open(folder / LOCK, "a", encoding="utf-8")  # noqa: SIM115 (stays open on purpose)
    until = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                lock.close()
                return None
            time.sleep(0.05)
        except OSError:
            return lock
        else:
            return lock


def is_taken(folder: Path) -> bool:
    """Whether a worker has the lock of a job's folder."""
    try:
        with open(folder / LOCK, "rb", opener=whole.at_once) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def note_keeper(folder: Path, keeps: bool) -> None:
    """Note that this process keeps the token of a run, or that there is none."""
    if keeps:
        write(folder, me(), KEEPER)
    else:
        (folder / KEEPER).unlink(missing_ok=True)


def is_kept_by_another(folder: Path) -> bool:
    """Whether another process that lives keeps the token of a run; only that one can start it as it was asked for."""
    keeper = read(folder, KEEPER)
    return keeper is not None and keeper.alive


def has_lost_its_keeper(folder: Path) -> bool:
    """Whether the process that kept the token of a run has ended, and the token with it."""
    keeper = read(folder, KEEPER)
    return keeper is not None and not keeper.alive and keeper.pid != os.getpid()


@contextmanager
def one_launcher(folder: Path) -> Iterator[None]:
    """Context in which nobody else launches anything in a folder, over all threads and servers.

    On a file system that knows no locks, over all threads of this server.
    """
    with open(folder / ".lock", "w", encoding="utf-8") as lock, ExitStack() as stack:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            stack.enter_context(HERE)
        yield
