"""What open pages cost: python -m tests.benchmarks.pages [--runs 200] [--watchers 100] [--seconds 30].

An idle page beside many finished runs, as a share of a core; then many pages that watch one run which takes a step every
half second: how long their ticks take, what the studio's process spends, and what it holds.
"""

import argparse
import asyncio
import statistics
import tempfile
import threading
import time
from contextlib import AsyncExitStack
from pathlib import Path

import psutil

from studio import events, jobs, processes, runs
from studio.runs import Run
from tests.jobs_at_work import practice
from tests.open_pages import Page, client, layout_of
from tests.studio_at_work import StudioProcess


def finished(root: Path, count: int) -> None:
    """So many runs that are over, each with the log of a short training."""
    for number in range(count):
        run = runs.create(root, practice(**{"training.seed": number}))
        log = jobs.of(run).log
        for event in (events.Started("cpu", {}), events.Planned(20, 4, 20), *(
                events.Stepped(step, {"loss": 2.0 / step, "rewards/margins": 0.1}) for step in range(1, 21)), events.Finished()):
            events.append(log, event)


def at_work(root: Path) -> Run:
    """A run that a process of ours pretends to train."""
    run = runs.create(root, practice())
    processes.write(run.folder, processes.of(psutil.Process().pid))
    for event in (events.Started("cpu", {}), events.Planned(20, 4, 100_000), events.Entered("training")):
        events.append(jobs.of(run).log, event)
    return run


def stepping(run: Run, ends: threading.Event) -> None:
    step = 0
    while not ends.wait(0.5):
        step += 1
        events.append(jobs.of(run).log, events.Stepped(step, {"loss": 2.0, "rewards/margins": 0.1, "grad_norm": 1.0}, 10**9))


def spent(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


async def watched(studio: StudioProcess, pages: int, seconds: float, front: str = "run-head") -> dict[str, float]:
    """So many pages, each from an address of its own and with the tab of the component `front` before the others, for so long.

    Gives waits in seconds, and the share of a core that the studio's process took.
    """
    process = psutil.Process(studio.process.pid)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client(studio.url, studio.headers, address=f"127.0.1.{place + 1}")) for place in range(pages)]
        layout = await layout_of(clients[0])
        tabs = {name: layout.timer_of(layout.by_id(name)) for name in ("run-head", "compare-head", "share-head")}
        opened = [Page(http, layout, active={timer: name == front for name, timer in tabs.items()}) for http in clients]
        for page in opened:
            await page.arrive()
        await asyncio.gather(*(page.stay(3) for page in opened))  # what looks once and then no more has looked
        for page in opened:
            page.waits.clear()
        cpu, began = spent(process), time.monotonic()
        await asyncio.gather(*(page.stay(seconds) for page in opened))
        took = time.monotonic() - began
        waits = sorted(wait for page in opened for wait in page.waits)
        failed = [words for page in opened for words in page.failures]
        assert not failed, failed[:3]
        return {"ticks": len(waits), "core": (spent(process) - cpu) / took, "median": statistics.median(waits),
                "p95": waits[int(0.95 * len(waits))], "longest": waits[-1], "MB": process.memory_info().rss / 1e6}


def in_words(found: dict[str, float]) -> str:
    return (f"{found['ticks']:,} ticks, {100 * found['core']:.1f} % of a core, median {found['median']:.3f} s, "
            f"95 % within {found['p95']:.3f} s, longest {found['longest']:.3f} s, {found['MB']:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--watchers", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=30)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "runs"
        finished(home, asked.runs)
        studio = StudioProcess(home).start()
        try:
            for front in ("run-head", "compare-head"):
                print(f"One idle page beside {asked.runs} runs, {front}: "
                      f"{in_words(asyncio.run(watched(studio, 1, asked.seconds, front)))}", flush=True)
            run, ends = at_work(home), threading.Event()
            threading.Thread(target=stepping, args=[run, ends], daemon=True).start()
            print(f"{asked.watchers} watchers of one run: {in_words(asyncio.run(watched(studio, asked.watchers, asked.seconds)))}", flush=True)
            ends.set()
        finally:
            studio.kill()


if __name__ == "__main__":
    main()
