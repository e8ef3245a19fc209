"""Which process works on a folder, known again for certain: a pid is reused, a pid with its start time and boot is not."""

import fcntl
import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from studio import whole

FILE = "worker.json"
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


def write(folder: Path, worker: Worker) -> None:
    """Note whose work a folder is, whole or not at all."""
    whole.write(folder / FILE, json.dumps(asdict(worker)))


def read(folder: Path) -> Worker | None:
    """Whose work it is; None where nobody was noted, and a process that never was where the note cannot be read."""
    try:
        noted = json.loads((folder / FILE).read_text(encoding="utf-8"))
        found = Worker(**noted)
        if type(found.pid) is int and isinstance(found.started, int | float) and isinstance(found.boot, str):
            return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):
        pass
    return Worker(0, -1.0)


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
