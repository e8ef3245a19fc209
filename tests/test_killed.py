"""A job that is killed at any moment: it is told, nothing half-made is offered, what was there before stays, the next try ends well."""

import hashlib
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from studio import examination, export, gguf_file, jobs, parcel, processes, unfinished
from studio.engine.merge import whole
from studio.export import ExportRequest
from studio.gguf_file import GGUFRequest
from studio.jobs import Job
from studio.runs import Run
from studio.settings import Settings
from studio.ui import doctor_card, export_card, share_tab
from studio.ui.studio import Studio
from tests.jobs_at_work import until
from tests.tiny_run import tiny_base, tuned_run

KILLS = 6


@dataclass
class Work:
    """A job on a folder: how it is asked for, what of it is offered, what the page says of it."""

    job: Job
    ask: Callable[[], object]
    offered: Callable[[], list[Path]]
    shown: Callable[[], str]

    def ended(self) -> str:
        until(lambda: jobs.status(self.job) in jobs.OVER)
        return jobs.status(self.job)

    def content(self) -> dict[str, str]:
        """What is offered: hashes by file name."""
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in self.offered()}


def paths(run: Run, what: str) -> list[Path]:
    return parcel.paths(run, what) if parcel.size(run, what) is not None else []


def merging(run: Run, studio: Studio) -> Work:
    job = jobs.of(run, "merge")
    return Work(job, lambda: jobs.request(job, "{}\n"), lambda: paths(run, "merged"), lambda: share_tab.state(studio, run, "merge"))


def writing_gguf(run: Run, studio: Studio) -> Work:
    job = jobs.of(run, gguf_file.KIND)
    merge = merging(run, studio)
    merge.ask()
    assert merge.ended() == "finished"
    return Work(job, lambda: jobs.request(job, GGUFRequest(precision="q8_0").to_yaml()), lambda: paths(run, "gguf"),
                lambda: share_tab.state(studio, run, "gguf"))


def examining(run: Run, studio: Studio) -> Work:
    settings = Settings()
    job = examination.job_of(studio.root, settings)
    job.folder.mkdir(parents=True)
    return Work(job, lambda: jobs.request(job, settings.to_yaml()),
                lambda: [job.folder / examination.FILE] if doctor_card.view(studio, settings.to_form()).folder else [],
                lambda: doctor_card.view(studio, settings.to_form()).html)


def exporting(run: Run, studio: Studio) -> Work:
    examined = examining(run, studio)
    examined.ask()
    assert examined.ended() == "finished"
    job = export.job_of(examined.job)
    return Work(job, lambda: export.begin(examined.job, ExportRequest(to="parquet")), lambda: list(filter(None, [export.result(job)])),
                lambda: export_card.state(str(examined.job.folder))[0])


STAYS = {merging: lambda finished: [finished], writing_gguf: lambda finished: [finished],
         examining: lambda finished: [{}, finished], exporting: lambda finished: [{}, finished]}
"""What may be offered after a kill: the earlier result of a merge, and of what is made anew from the start nothing as well."""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.fault("T89")
@pytest.mark.parametrize("kind", [merging, writing_gguf, examining, exporting])
def test_a_job_that_is_killed_at_any_moment_is_told_and_leaves_what_was_there(base, tmp_path, kind, tries):
    run = tuned_run(tmp_path, base)
    work, dice, crashed = kind(run, Studio(tmp_path, None)), random.Random(kind.__name__), 0
    begun = time.monotonic()
    work.ask()
    assert work.ended() == "finished", (work.job.folder / "worker.log").read_text(encoding="utf-8")
    lasts, finished = time.monotonic() - begun, work.content()
    assert finished
    for _ in range(KILLS):
        work.ask()
        time.sleep(dice.uniform(0.3, 1) * lasts)
        if jobs.status(work.job) in jobs.ALIVE:
            processes.read(work.job.folder).signal_all(signal.SIGKILL)
        if work.ended() == "crashed":
            crashed += 1
            assert "ended without a word" in work.shown()
        assert work.content() in STAYS[kind](finished)
        work.ask()
        assert work.ended() == "finished" and work.content() == finished
        assert not list(work.job.folder.glob(f"{unfinished.PREFIX}*")) and not list(work.job.folder.glob(".*.old"))
    assert crashed, "None was killed in time."
    tries(KILLS)


def test_a_result_that_was_being_replaced_when_the_job_was_killed_gets_its_place_back(tmp_path):
    folder = tmp_path / "merged"
    with whole(folder) as draft:
        (draft / "model").write_text("first", encoding="utf-8")
    os.replace(folder, tmp_path / ".merged.old")  # and here the machine goes down
    with pytest.raises(OSError), whole(folder):
        raise OSError("no space")
    assert (folder / "model").read_text(encoding="utf-8") == "first" and [path.name for path in tmp_path.iterdir()] == ["merged"]


@pytest.mark.fault("T89")
def test_what_a_killed_worker_left_is_gone_before_the_next_asks_for_free_space(base, tmp_path):
    run = tuned_run(tmp_path, base)
    left = run.folder / "merge" / ".draft-merged"
    left.mkdir(parents=True)
    (left / "model.safetensors").touch()
    jobs.request(jobs.of(run, "merge"), "{}\n")
    until(lambda: jobs.status(jobs.of(run, "merge")) == "running")
    until(lambda: not left.exists() or "loading" in (run.folder / "merge" / "events.jsonl").read_text(encoding="utf-8"))
    jobs.end(jobs.of(run, "merge"))
    assert not left.exists()


@pytest.mark.parametrize("days", [0, 2])
def test_what_was_left_where_several_work_goes_a_day_after_it_was_last_changed(tmp_path, monkeypatch, days):
    draft = unfinished.unique(tmp_path)
    draft.mkdir()
    (draft / "ids.raw").touch()
    now = time.time() + days * 24 * 3600
    monkeypatch.setattr(time, "time", lambda: now)
    unfinished.clear_forgotten(tmp_path)
    assert draft.exists() is (days == 0)
