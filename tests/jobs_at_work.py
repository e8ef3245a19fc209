"""Real jobs for the tests: short practice settings, and patience with a limit."""

import time
from collections.abc import Callable
from pathlib import Path

from studio import events, jobs
from studio.presets import FIRST, all_presets
from studio.runs import Run
from studio.settings import Settings

PATIENCE = 120
"""Seconds; a worker needs about six to import its libraries on two cores."""


def practice(**changes) -> Settings:
    """The practice preset, cut down to a few steps, with changes by field name."""
    short = {"data.rows": 40, "data.held_out": 0.2, "training.max_steps": 4, "training.batch_size": 4}
    return Settings.from_form(**all_presets()[FIRST].settings.to_form() | short | changes)


def until(happened: Callable[[], object], seconds: float = PATIENCE) -> object:
    """Wait for something to become true; what it became."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if outcome := happened():
            return outcome
        time.sleep(0.05)
    raise AssertionError(f"It did not happen within {seconds} seconds.")


def ended(run: Run, kind: str = "train") -> str:
    """Wait for the job's last word; how it ended."""
    job = jobs.of(run, kind)
    until(lambda: jobs.status(job) in jobs.OVER)
    return jobs.status(job)


def said(run: Run, kind: str = "train") -> list[events.Event]:
    return events.read(jobs.of(run, kind).log)


def heard(run: Run, event: type) -> list[events.Event]:
    return [one for one in said(run) if isinstance(one, event)]


def log_of(run: Run, kind: str = "train") -> str:
    return (Path(jobs.of(run, kind).folder) / "worker.log").read_text(encoding="utf-8", errors="replace")
