"""Forward and backward on the CPU: ours against TRL. `make bench` for everything, `make bench ARGS=--quick` in minutes.

Prints a table and writes tests/benchmarks/results/cpu*.json. A contender's time counts only if its loss and gradients
equal TRL's on the same pairs. Contenders take turns batch by batch, so that a slow moment of the machine hits all.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from statistics import median

import psutil
import torch
from rich.console import Console
from rich.table import Table

from studio.engine.orpo.scoring import Scorer
from tests.benchmarks.contenders import PACKED, PADDED, TRL, contenders, gradient_of, matrix_rate, model_of, recomputing, useful_flops
from tests.benchmarks.lengths import LONGEST, MEANS, SETS, batches

VOCABULARIES = (49_152, 128_256)
RESULTS = Path(__file__).parent / "results"
KEPT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 60)}
"""glibc's allocator returns large blocks to the system and is handed fresh pages for each new one. Where those are dear, as
in many virtual machines, this is a good part of the reference's time; with these settings it pays for each page once."""
CPU = torch.device("cpu")
GROUPED = "TRL, by length"
LOSS_LIMIT, GRADIENT_LIMIT = 2e-6, 5e-6
TARGETS = {("fixed", "none"): 2.5, ("log-normal", "none"): 4.5, ("long prompt", "none"): 5.0, ("short prompt", "none"): 1.5}
"""What was aimed at, at a vocabulary of 49k: times as many pairs a second as TRL. With checkpointing 1.5 everywhere."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Time ORPO's forward and backward pass against TRL.")
    parser.add_argument("--quick", action="store_true", help="texts of 0.4 times the length, a vocabulary of 49k only")
    parser.add_argument("--vocabulary", type=int, choices=VOCABULARIES, help="only this one")
    parser.add_argument("--keep-memory", action="store_true", help="let the allocator keep what it has, which helps whoever needs most")
    parser.add_argument("--peak", nargs=4, metavar=("CONTENDER", "SET", "VOCABULARY", "SCALE"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.keep_memory and not KEPT.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, "-m", "tests.benchmarks.cpu", *sys.argv[1:]], os.environ | KEPT)
    if asked.peak:
        print(json.dumps(peak_here(*asked.peak[:2], int(asked.peak[2]), float(asked.peak[3]))))
        return
    rows = []
    count, scale = (2, 0.4) if asked.quick else (3, 1.0)
    for vocabulary in [asked.vocabulary] if asked.vocabulary else VOCABULARIES[:1] if asked.quick else VOCABULARIES:
        for checkpointing in ("none", "full"):
            for name in SETS if checkpointing == "none" else ("fixed",):
                if not fits(name, vocabulary, scale):
                    print(f"{name} at a vocabulary of {vocabulary:,} is left out: TRL's logits do not fit into this machine's memory.")
                    continue
                rows.append(compare(name, vocabulary, checkpointing, count, scale))
                print(json.dumps(rows[-1]), flush=True)
    # This process would hold on to what its largest contender took, and the peaks' own would not fit beside it.
    peaks = [] if asked.keep_memory or asked.vocabulary == VOCABULARIES[1] else [peaks_of("log-normal", VOCABULARIES[0], scale)]
    report(rows, peaks)
    result = {"machine": machine(), "quick": asked.quick, "memory_kept": asked.keep_memory, "steps": rows, "peaks": peaks}
    name = "cpu" + f"-{asked.vocabulary}" * bool(asked.vocabulary) + "-quick" * asked.quick + "-kept" * asked.keep_memory
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def fits(name: str, vocabulary: int, scale: float) -> bool:
    """Whether the reference's logits, of which it holds about five copies, fit into the memory that is free."""
    longest = LONGEST if name == "log-normal" else scale * sum(MEANS[name][:2])
    return 5 * 4 * 2 * SETS[name] * longest * vocabulary < psutil.virtual_memory().available


def compare(name: str, vocabulary: int, checkpointing: str, count: int, scale: float) -> dict:
    """Seconds a batch of each contender, the median over `count` batches after the gate; `scale` multiplies the lengths."""
    model = model_of(vocabulary)
    first, *rest = islice(batches(name, vocabulary, seed=1, scale=scale), count + 1)
    running = contenders(model, first)
    if checkpointing == "full":
        running = recomputing(model, running)
    equal = gate(model, running, first)
    takes = {who: rest for who in running}
    if name == "log-normal":  # the one set in which it makes a difference
        running[GROUPED], takes[GROUPED] = running[TRL], by_length(rest)
    seconds, rates = {who: [] for who in running}, []
    for turn in range(count):
        order = list(running)
        for who in order[turn % len(order) :] + order[: turn % len(order)]:
            began = time.perf_counter()
            running[who](takes[who][turn])
            seconds[who].append(time.perf_counter() - began)
            assert gradient_of(model).norm() > 0
        rates.append(matrix_rate(CPU, torch.float32, 1024))
    needed = [useful_flops(model, batch, checkpointing == "full") for batch in rest]
    tokens = [sum(len(pair.chosen) + len(pair.rejected) for pair in batch) for batch in rest]
    middle = {who: median(taken) for who, taken in seconds.items()}
    ideal = [flops / rate for flops, rate in zip(needed, rates, strict=True)]
    return {"set": name, "pairs": SETS[name], "vocabulary": vocabulary, "checkpointing": checkpointing, "batches": count, "length_scale": scale,
            "equal": equal, "seconds": seconds, "matrix_rate": median(rates), "share_of_matrix_rate": {
                who: median(flops / taken / rate for flops, taken, rate in zip(needed, own, rates, strict=True)) for who, own in seconds.items()},
            "pairs_per_second": {who: SETS[name] / taken for who, taken in middle.items()},
            "tokens_per_second": {who: sum(tokens) / sum(taken) for who, taken in seconds.items()},
            # Of the same batch, so that what the machine did meanwhile falls out; in other batches of all pairs together.
            "times_trl": {who: sum(seconds[TRL]) / sum(taken) if who == GROUPED else
                          median(t / own for t, own in zip(seconds[TRL], taken, strict=True)) for who, taken in seconds.items()},
            "times_trl_at_the_matrix_rate": median(t / least for t, least in zip(seconds[TRL], ideal, strict=True))}


def by_length(found: list[list]) -> list[list]:
    """The same pairs in batches of like lengths, as transformers' sampling by length makes them."""
    pairs = sorted((pair for batch in found for pair in batch), key=lambda pair: max(len(pair.chosen), len(pair.rejected)))
    size = len(found[0])
    return [pairs[start : start + size] for start in range(0, len(pairs), size)]


def gate(model: torch.nn.Module, running: dict, batch: list) -> dict:
    """How far each contender's loss and gradients are from TRL's. Raises SystemExit if too far."""
    said = {who: (step(batch).item(), gradient_of(model)) for who, step in running.items()}
    loss, gradient = said[TRL]
    equal = {}
    for who in (PACKED, PADDED):
        off = {"loss": abs(said[who][0] - loss), "gradient": ((said[who][1] - gradient).norm() / gradient.norm()).item()}
        if off["loss"] > LOSS_LIMIT or off["gradient"] > GRADIENT_LIMIT or not gradient.norm() > 0:
            raise SystemExit(f"{who} does not compute what TRL computes: {off}. No time was taken.")
        equal[who] = off
    return equal


def peaks_of(name: str, vocabulary: int, scale: float) -> dict:
    """Peak memory above the model of each contender, in a fresh process each."""
    def measured(who: str) -> int:
        call = [sys.executable, "-m", "tests.benchmarks.cpu", "--peak", who, name, str(vocabulary), str(scale)]
        return json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout.splitlines()[-1])

    found = {who: measured(who) for who in (PACKED, PADDED, TRL)}
    return {"set": name, "vocabulary": vocabulary, "length_scale": scale, "bytes_above_the_model": found,
            "trl_times": {who: found[TRL] / taken for who, taken in found.items()}}


def peak_here(who: str, name: str, vocabulary: int, scale: float) -> int:
    """What this process held beyond the loaded model at its highest, in bytes (Linux)."""
    model = model_of(vocabulary)
    small = next(batches(name, vocabulary, seed=3, scale=0.05))
    running = contenders(model, small)
    if who == PADDED:
        assert not Scorer(model, filler=0).packed
    running[who](small)  # what a library loads once is no part of a step
    gradient_of(model)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status("VmRSS")
    for batch in islice(batches(name, vocabulary, seed=2, scale=scale), 2):
        running[who](batch)
        gradient_of(model)
    return _status("VmHWM") - before


def _status(field: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(next(line.split()[1] for line in text.splitlines() if line.startswith(field)))


def report(rows: list[dict], peaks: list[dict]) -> None:
    """The table. `at most` is what an engine would reach whose every product ran at the rate of large matrices, and nothing else took time."""
    console = Console(width=130)
    table = Table(title="Forward + backward, float32, LoRA r16; pairs/s and times TRL's", show_lines=False)
    for column in ("lengths, batch", "vocabulary", "checkpointing", TRL, PADDED, PACKED, "aim", "at most", "of matrix rate"):
        table.add_column(column, justify="left" if column == "lengths, batch" else "right")
    for row in rows:
        aim = 1.5 if row["checkpointing"] == "full" else TARGETS[row["set"], "none"] if row["vocabulary"] == 49_152 else None
        speed, times = row["pairs_per_second"], row["times_trl"]
        table.add_row(f"{row['set']}, {row['pairs']}", f"{row['vocabulary']:,}", row["checkpointing"], f"{speed[TRL]:.2f}",
                      *(f"{speed[who]:.2f}  {times[who]:.2f}x" for who in (PADDED, PACKED)), f"{aim}x" if aim else "",
                      f"{row['times_trl_at_the_matrix_rate']:.1f}x", f"{row['share_of_matrix_rate'][PACKED]:.0%}")
    console.print(table)
    for row in rows:
        if GROUPED in row["times_trl"]:
            grouped, packed = (row["times_trl"][who] for who in (GROUPED, PACKED))
            console.print(f"{row['set']}, vocabulary {row['vocabulary']:,}: in batches of like lengths TRL takes the same pairs at "
                          f"{grouped:.2f} times its speed; packed rows are {packed / grouped:.2f} times as fast as that.")
    for row in peaks:
        taken = ", ".join(f"{who} {size / 1e9:.2f} GB" for who, size in row["bytes_above_the_model"].items())
        console.print(f"Peak above the model, {row['set']}, vocabulary {row['vocabulary']:,}: {taken}; "
                      f"TRL takes {row['trl_times'][PACKED]:.1f} times ours (aim 3.5).")


def machine() -> dict:
    """What the figures were measured on."""
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
                  if line.startswith("model name")), platform.processor())
    return {"processor": model, "cores": os.cpu_count(), "threads": torch.get_num_threads(), "load": os.getloadavg()[0],
            "versions": {name: version(name) for name in ("torch", "transformers", "peft", "trl")}}


if __name__ == "__main__":
    main()
