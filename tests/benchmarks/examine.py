"""Examining a file of pairs: `python -m tests.benchmarks.examine --pairs 40000`, with the page open beside it.

The real job reads the file; a real studio is asked for its page all the while. Prints seconds, the job's peak memory and
how long the page took to answer, and writes tests/benchmarks/results/examine-PAIRS.json.
"""

import argparse
import json
import random
import tempfile
import time
from contextlib import suppress
from itertools import islice
from pathlib import Path

import httpx
import psutil

from studio import events, examination, jobs
from studio.practice import conversations
from studio.settings import Settings
from studio.summary import Summary
from tests.studio_at_work import StudioProcess

RESULTS = Path(__file__).parent / "results"
WORDS = (60, 130, 130)
"""Mean words of question and answers."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the examination of a file.")
    parser.add_argument("--pairs", type=int, default=40_000)
    count = parser.parse_args().pairs
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "pairs.jsonl", count)
        studio = StudioProcess(Path(folder) / "runs").start()
        try:
            result = {"pairs": count, "bytes": path.stat().st_size} | watched(studio.runs, path, studio)
        finally:
            studio.kill()
    print(json.dumps(result, indent=1))
    (RESULTS / f"examine-{count}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def watched(root: Path, path: Path, studio: StudioProcess) -> dict:
    """One examination from asking to its end."""
    began, peak, answers = time.perf_counter(), 0, []
    job = examination.begin(root, Settings.from_form(**{"data.source": str(path)}))
    while jobs.status(job) not in jobs.OVER:
        with suppress(psutil.NoSuchProcess):
            peak = max(peak, psutil.Process(json.loads((job.folder / "worker.json").read_text())["pid"]).memory_info().rss)
        asked = time.perf_counter()
        httpx.get(studio.url, headers=studio.headers, timeout=30).raise_for_status()
        answers.append(time.perf_counter() - asked)
        time.sleep(0.25)
    seconds = time.perf_counter() - began
    found = examination.found(job)
    if found is None:
        raise SystemExit(Summary(events.read(job.log)).failure or "The examination ended without a word.")
    answers.sort()
    return {"seconds": round(seconds, 1), "peak_bytes": peak, "usable": found.pairs,
            "findings": {finding.name: finding.count for finding in found.findings},
            "page_seconds": {"median": round(answers[len(answers) // 2], 3), "longest": round(answers[-1], 3), "asked": len(answers)}}


def write(path: Path, count: int) -> Path:
    """Pairs of sentences of the practice set strung together, one in fifty a repeat of the one before."""
    rng = random.Random(0)
    sentences = [message["content"] for talk in islice(conversations(0), 4000) for message in talk]

    def text(words: int) -> str:
        found, wanted = [], rng.gauss(words, words / 4)
        while len(found) < wanted:
            found += rng.choice(sentences).split()
        return " ".join(found)

    with open(path, "w", encoding="utf-8") as lines:
        line = ""
        for number in range(count):
            if number % 50 or not line:
                line = json.dumps({name: text(words) for name, words in zip(("prompt", "chosen", "rejected"), WORDS, strict=True)})
            lines.write(line + "\n")
    return path


if __name__ == "__main__":
    main()
