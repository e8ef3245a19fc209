"""Findings, each written as soon as it is known, and how they are taken."""

import json
import os
import time
import traceback
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch

from tests.benchmarks.contenders import PACKED, TRL
from tests.benchmarks.lengths import FULL

BEGAN = time.monotonic()


class Say:
    """Findings, each written at once."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.failures = folder, 0
        self.file = open(folder / "results.jsonl", "a", encoding="utf-8")  # noqa: SIM115 (until the process ends)

    def __call__(self, what: str, **found) -> None:
        self.failures += "failed" in found and bool(found["failed"])
        line = json.dumps({"what": what, "at": round(time.monotonic() - BEGAN, 1), **found}, default=str)
        self.file.write(line + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())
        print(line[:700], flush=True)

    @contextmanager
    def tried(self, what: str, **known):
        """A part whose failure is a finding and ends nothing else."""
        found, began = {}, time.monotonic()
        try:
            yield found
        except BaseException as error:
            found["failed"] = f"{type(error).__name__}: {error}"[:500]
            found["trace"] = traceback.format_exc()[-1500:]
            if not isinstance(error, Exception):  # out of time: the finding is written, and the stage ends
                raise
        finally:
            self(what, **known, took=round(time.monotonic() - began, 2), **found)


def left(asked) -> float:
    return asked.seconds - (time.monotonic() - BEGAN)


def wait(device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    one, other = one.detach().float().cpu(), other.detach().float().cpu()
    return ((one - other).norm() / other.norm()).item()


def timed(work, device, count: int) -> float:
    """Seconds of one, the median; the inputs are larger than the cache or the reader knows that they are not."""
    work()
    taken = []
    for _ in range(count):
        wait(device)
        began = time.perf_counter()
        work()
        wait(device)
        taken.append(time.perf_counter() - began)
    return median(taken)


def table(say, rows: list[dict]) -> None:
    """The figures as lines of text, also in summary.txt."""
    lines = []
    for row in rows:
        head_ = f"{row['shape']} {row['base']:5}{row['set']:13}{row['pairs']} pairs, recomputed {'all' if row['recomputed'] else 'none':5}"
        if "step" not in row:
            lines.append(head_ + str(row.get("failed", "")))
            continue
        lines.append(head_ + "; ".join(f"{who}: {taken * 1e3:.0f} ms, {row['peak_gb'][who]} GB, {row['share'][who]:.0%}"
                                       + (f", {row['times_trl'][who]}x" if who in row["times_trl"] else "") for who, taken in row["step"].items())
                     + ("; " + "; ".join(f"{who}: {why}" for who, why in row["failed_who"].items()) if row["failed_who"] else ""))
    lines += verdicts(rows)
    with open(say.folder / "summary.txt", "a", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    print("\n".join(lines), flush=True)


def verdicts(rows: list[dict]) -> list[str]:
    """What the figures say of the engine's aims: against TRL at real lengths, of the matrix rate, of memory; and where a rival is faster."""
    told, taken = [], [row for row in rows if "step" in row]
    for one in sorted({(row["shape"], row["base"]) for row in taken}):
        mine = [row for row in taken if (row["shape"], row["base"]) == one]
        named = f"{one[0]} {one[1]}"
        real = [row for row in mine if row["set"] == "log-normal"]
        fastest = {who: min((row["step"][who] for row in real if who in row["step"]), default=None) for who in (PACKED, TRL)}
        if all(fastest.values()):
            told.append(f"{named}: at real lengths {fastest[TRL] / fastest[PACKED]:.1f} times TRL, each at its faster setting (aim 2).")
        shares = [row["share"][PACKED] for row in mine if PACKED in row["share"]]
        if shares:
            told.append(f"{named}: {max(shares):.0%} of the measured matrix rate (aim 50 %).")
        peaks = [row["peak_gb"][PACKED] for row in mine if row["set"] == FULL and PACKED in row["peak_gb"]]
        if peaks:
            told.append(f"{named}: two pairs of 1,024 at most {min(peaks):.1f} GB (aim 11).")
        told += [f"{named}: {who} is faster at {row['set']}: {seconds * 1e3:.0f} against {row['step'][PACKED] * 1e3:.0f} ms."
                 for row in mine for who, seconds in row["step"].items() if PACKED in row["step"] and not who.startswith("ours")
                 and seconds < row["step"][PACKED]]
    return told
