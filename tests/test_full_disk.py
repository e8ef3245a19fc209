"""A disk that runs full under a run: what is missing is said, what was saved stays as it is, and with room again the run goes on."""

import errno
import hashlib
import os
import subprocess

import pytest
import torch
from safetensors.torch import load_file

from studio import events, fit, gpu, jobs, runs
from studio.engine import space
from studio.errors import NoSpaceError, StudioError
from studio.jobs import Queue
from studio.runs import Run
from studio.shape import Shapes
from studio.summary import Summary
from tests.jobs_at_work import ended, heard, log_of, practice, said, until

# Every checkpoint is kept: one that is removed once the disk is full would make room for the next.
CHOICES = {"training.max_steps": 8, "training.checkpoint_every": 1, "training.keep_checkpoints": 9, "adapter.dropout": 0.1}
MEGABYTES = 48


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """A disk of its own that is small enough to be filled."""
    place = tmp_path_factory.mktemp("disk")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("Only an administrator may mount a small disk here.")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that always had room."""
    queue = Queue(tmp_path_factory.mktemp("runs"), poll_seconds=0.1).open()
    run = queue.add(practice(**CHOICES))
    assert ended(run) == "finished", log_of(run)
    queue.close()
    return run


def fill(disk) -> None:
    """Put something on the disk that leaves no byte free, whatever else is being written there meanwhile."""
    piece, filled = 1 << 20, 0
    with open(disk / "ballast", "wb") as file:
        while piece:
            try:
                os.posix_fallocate(file.fileno(), filled, piece)
                filled += piece
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                piece //= 2


def sealed(run: Run) -> dict[str, str]:
    """Every file of every complete checkpoint, and its hash."""
    return {str(path.relative_to(run.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for manifest in run.checkpoints.glob("step-*/manifest.json") for path in manifest.parent.iterdir()}


@pytest.mark.fault("T20")
def test_a_run_whose_disk_runs_full_says_what_is_missing_and_finishes_once_there_is_room(disk, whole):
    queue = Queue(disk, poll_seconds=0.1).open()
    run = queue.add(practice(**CHOICES))
    until(lambda: len(heard(run, events.Checkpointed)) >= 2)
    fill(disk)
    assert ended(run) == "failed", log_of(run)
    reason = Summary(said(run)).failure
    assert "The disk is full" in reason and "free in" in reason and "what was saved before is untouched" in reason
    before = sealed(run)
    assert run.last_checkpoint >= 2 and before
    assert not list(run.checkpoints.glob(".draft-*")), "Nothing half made is left."
    (disk / "ballast").unlink()
    assert sealed(run) == before
    queue.resume(run)
    until(lambda: heard(run, events.Finished))
    queue.close()
    assert [step.step for step in Summary(said(run)).steps] == list(range(1, 9))
    mine, wanted = (load_file(one.adapter / "adapter_model.safetensors") for one in (run, whole))
    assert all(torch.equal(mine[name], wanted[name]) for name in wanted)


@pytest.mark.fault("T20")
@pytest.mark.slow
def test_on_a_disk_without_a_byte_a_job_still_says_why_it_ended(disk):
    run = runs.create(disk, practice(**CHOICES))
    jobs.start(jobs.of(run))
    until(lambda: heard(run, events.Entered))
    fill(disk)
    assert ended(run) == "failed", log_of(run)
    assert "The disk is full" in Summary(said(run)).failure
    (disk / "ballast").unlink()


@pytest.mark.fault("T21")
def test_a_run_that_would_fill_the_disk_is_refused_with_both_numbers_before_it_is_made(disk):
    with pytest.raises(NoSpaceError, match=r"Only \d+ MB are free in .* and this run needs \d+ MB there"):
        gpu.refuse_what_cannot_start(practice(), disk)
    assert not [run for run in runs.listed(disk) if jobs.status(jobs.of(run)) == "queued"]


def test_what_a_run_leaves_on_the_disk_is_known_beforehand(whole):
    settings = whole.settings
    told = fit.on_disk(settings, Shapes().find(settings.model))
    left = sum(path.stat().st_size for folder in (whole.adapter, whole.checkpoints) for path in folder.rglob("*.safetensors"))
    assert left <= told <= 2.2 * left, "One checkpoint more is counted: the one that is being written."


@pytest.mark.fault("T21")
def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(StudioError, match="cannot be written"):
        gpu.refuse_what_cannot_start(practice(), tmp_path / "file" / "runs")


def test_the_room_that_is_kept_back_is_given_back_at_the_end(whole):
    assert not (whole.folder / space.RESERVE).exists()
