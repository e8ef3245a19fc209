"""A run that was stopped, killed or cut off in the middle of a save goes on, and ends as if nothing had happened."""

import json
import os
import random
import secrets
import shutil
import signal
import time

import pytest
import torch
from safetensors.torch import load_file

from studio import events, jobs, runs
from studio.engine import checkpoints
from studio.errors import BusyError, StudioError
from studio.jobs import Queue
from studio.runs import Run
from studio.summary import Summary
from tests.jobs_at_work import ended, heard, log_of, practice, said, until

STEPS = 8
CHOICES = {"training.max_steps": STEPS, "adapter.dropout": 0.2, "training.checkpoint_every": 2, "evaluation.every": 4}
"""With dropout, so that random numbers count; over more than one epoch, so that the order of the pairs does."""


def adapter(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.adapter / "adapter_model.safetensors")


def curve(run: Run) -> list[tuple[int, dict]]:
    return [(event.step, event.metrics) for event in Summary(said(run)).steps]


def worker_of(run: Run) -> int:
    return json.loads((run.folder / "worker.json").read_text(encoding="utf-8"))["pid"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def queue(root):
    queue = Queue(root, poll_seconds=0.1).open()
    yield queue
    queue.close()


@pytest.fixture(scope="module")
def whole(queue):
    """The run that nothing happened to."""
    run = queue.add(practice(**CHOICES))
    assert ended(run) == "finished", log_of(run)
    return run


def is_as_if_nothing_had_happened(run: Run, whole: Run) -> None:
    assert curve(run) == curve(whole)
    mine, wanted = adapter(run), adapter(whole)
    assert mine.keys() == wanted.keys() and all(torch.equal(mine[name], wanted[name]) for name in wanted)


def test_checkpoints_are_taken_and_the_latest_kept_and_hold_nothing_that_could_run_code(whole):
    assert [event.step for event in heard(whole, events.Checkpointed)] == [2, 4, 6]
    kept = sorted(path.name for path in whole.checkpoints.iterdir())
    assert kept == ["step-00000004", "step-00000006"]
    assert {path.suffix for path in whole.checkpoints.rglob("*") if path.is_file()} == {".json", ".safetensors"}


def test_looking_at_the_model_in_between_changes_nothing(queue, whole):
    run = queue.add(practice(**CHOICES | {"evaluation.every": 100}))
    assert ended(run) == "finished", log_of(run)
    assert {event.step for event in heard(run, events.Sampled)} == {STEPS} < {event.step for event in heard(whole, events.Sampled)}
    is_as_if_nothing_had_happened(run, whole)


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_exactly(queue, whole):
    run = queue.add(practice(**CHOICES))
    until(lambda: len(heard(run, events.Stepped)) >= 3)
    jobs.stop(jobs.of(run))
    assert ended(run) == "stopped" and run.last_checkpoint == len(curve(run))
    before = len(curve(run))
    queue.resume(run)
    assert ended(run) == "finished", log_of(run)
    assert heard(run, events.Resumed)[0].step == before  # a stop loses no step
    is_as_if_nothing_had_happened(run, whole)
    with pytest.raises(BusyError, match="has not ended yet"):
        queue.resume(queue.add(practice(**CHOICES | {"training.max_steps": 1})))


@pytest.mark.parametrize("kills", [(3,), pytest.param((3, 5, 7), marks=pytest.mark.slow)], ids=["once", "again and again"])
@pytest.mark.fault("T22")
def test_a_worker_that_was_killed_goes_on_exactly(queue, whole, kills):
    run = queue.add(practice(**CHOICES))
    for at in kills:
        until(lambda at=at: len(curve(run)) >= at)
        os.kill(worker_of(run), signal.SIGKILL)
        until(lambda: jobs.status(jobs.of(run)) == "crashed")
        queue.resume(run)
    assert ended(run) == "finished", log_of(run)
    assert not list(run.folder.glob(".draft-*"))
    is_as_if_nothing_had_happened(run, whole)


@pytest.mark.slow
@pytest.mark.parametrize("choices", [{"training.optimizer": "paged_adamw_8bit", "model.quantization": "nf4"},
                                     {"training.optimizer": "adafactor", "training.schedule": "cosine"}], ids=["8 bits", "adafactor"])
def test_other_optimizers_go_on_exactly_too(queue, root, choices):
    whole = queue.add(practice(**CHOICES | choices | {"training.max_steps": 4}))
    assert ended(whole) == "finished", log_of(whole)
    run = copied(whole, root, f"other-0101-0000-{secrets.token_hex(2)}")
    queue.resume(run)
    until(lambda: len(heard(run, events.Finished)) == 2)
    assert heard(run, events.Resumed)[0].step == 2
    is_as_if_nothing_had_happened(run, whole)


@pytest.mark.slow
def test_a_run_goes_on_from_an_older_checkpoint_if_the_newest_is_damaged_and_says_so(queue, whole, root):
    run = copied(whole, root, "damaged-0101-0000-aaaa")
    (run.checkpoints / "step-00000006" / "weights.safetensors").write_bytes(b"x")
    queue.resume(run)
    until(lambda: len(heard(run, events.Finished)) == 2)
    assert heard(run, events.Resumed)[0].step == 4
    assert any("step-00000006 is damaged" in event.text for event in heard(run, events.Noted))
    is_as_if_nothing_had_happened(run, whole)


@pytest.mark.fault("T23")
def test_a_run_whose_data_or_settings_have_changed_is_refused_and_the_difference_named(queue, whole, root):
    run = copied(whole, root, "changed-0101-0000-bbbb")
    settings = run.settings.to_form() | {"training.batch_size": 2, "data.seed": 7}
    (run.folder / "settings.yaml").write_text(practice(**settings).to_yaml(), encoding="utf-8")
    queue.resume(run)
    until(lambda: heard(run, events.Failed))
    reason = heard(run, events.Failed)[0].reason
    assert "training.batch_size (was 4, is 2)" in reason and "pairs, tokenizer" in reason and "start a new run" in reason
    assert adapter(run).keys() == adapter(whole).keys()


def test_a_run_without_a_checkpoint_cannot_go_on(queue, whole, root):
    run = copied(whole, root, "without-0101-0000-cccc")
    shutil.rmtree(run.checkpoints)
    with pytest.raises(StudioError, match="no checkpoint to go on from"):
        queue.resume(run)


def copied(run: Run, root, name: str) -> Run:
    shutil.copytree(run.folder, root / name)
    return runs.find(root, name)


# --- the seal ---------------------------------------------------------------------------------------------------------

CONTENT = {"weights": {"a": torch.arange(50.0)}, "optimizer": {"0/exp_avg": torch.ones(50)}}
FACTS = {"schedule": {"last_epoch": 3}, "optimizer": {"plain": {}, "groups": []}}


def sealed(parent, step, **identity):
    return checkpoints.write(parent, step, identity, CONTENT, FACTS)


def killed_at(call: int, parent, step: int) -> bool:
    """Seal a checkpoint in a process that is killed before its n-th call to the system; whether it was."""
    child = os.fork()
    if child == 0:
        made = 0

        def counted(real):
            def wrapper(*args, **options):
                nonlocal made
                made += 1
                if made == call:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **options)
            return wrapper

        checkpoints.save_file = counted(checkpoints.save_file)
        for name in ("fsync", "replace", "open"):
            setattr(checkpoints.os, name, counted(getattr(os, name)))
        checkpoints.Path.write_text = counted(checkpoints.Path.write_text)
        sealed(parent, step)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.fault("T19")
def test_a_kill_at_any_point_of_a_save_leaves_the_earlier_checkpoint_whole(tmp_path):
    sealed(tmp_path, 2)
    before = (tmp_path / "step-00000002" / "weights.safetensors").read_bytes()
    steps = []
    while killed_at(len(steps) + 1, tmp_path, 4):
        found, skipped = checkpoints.newest(tmp_path)
        steps.append(found.step)
        assert not skipped and (tmp_path / "step-00000002" / "weights.safetensors").read_bytes() == before
        shutil.rmtree(tmp_path / "step-00000004", ignore_errors=True)
    # The new one counts from when it has its name, and never before.
    assert len(steps) >= 15 and steps == sorted(steps) and set(steps) == {2, 4}
    assert checkpoints.newest(tmp_path)[0].step == 4
    checkpoints.prune(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000004"]


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "schedule.json", "optimizer.json", "manifest.json"])
@pytest.mark.fault("T19")
def test_a_file_of_any_other_length_or_content_spoils_its_checkpoint_only(tmp_path, name):
    sealed(tmp_path, 2)
    content = (sealed(tmp_path, 4).folder / name).read_bytes()
    path = tmp_path / "step-00000004" / name
    flipped = bytes([content[-2] ^ 1])
    for spoiled in (b"", content[: len(content) // 2], content[:-1], content[:-2] + flipped + content[-1:], content + b" "):
        if name == "manifest.json" and spoiled in (content + b" ",):
            continue  # white space changes nothing in JSON
        path.write_bytes(spoiled)
        found, skipped = checkpoints.newest(tmp_path)
        assert found.step == 2 and "step-00000004" in skipped[0], spoiled[-20:]
    path.unlink()
    found, skipped = checkpoints.newest(tmp_path)
    assert found.step == 2 and f"{name} is missing" in skipped[0]


@pytest.mark.fault("T30")
def test_the_highest_steps_are_kept_whatever_the_clock_says(tmp_path):
    for step in (2, 10, 4, 8, 6):
        sealed(tmp_path, step)
    for folder in tmp_path.iterdir():
        moment = time.time() + random.Random(folder.name).randint(-10**6, 10**6)
        os.utime(folder, (moment, moment))
    checkpoints.prune(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000008", "step-00000010"]


def test_a_damaged_checkpoint_takes_no_whole_one_s_place(tmp_path):
    for step in (2, 4, 6):
        sealed(tmp_path, step)
    (tmp_path / "step-00000006" / "manifest.json").unlink()
    checkpoints.prune(tmp_path, 2)
    assert checkpoints.newest(tmp_path)[0].step == 4 and (tmp_path / "step-00000002").exists()


@pytest.mark.fault("T20")
def test_a_full_disk_leaves_nothing_of_the_new_checkpoint_and_all_of_the_old(tmp_path, monkeypatch):
    sealed(tmp_path, 2)
    monkeypatch.setattr(checkpoints, "save_file", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        sealed(tmp_path, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"] and checkpoints.newest(tmp_path)[0].step == 2


@pytest.mark.parametrize("trick", ["../outside.json", "/etc/hostname", "sub/file.json"])
@pytest.mark.fault("T61")
def test_a_manifest_cannot_point_outside_its_folder(tmp_path, trick):
    folder = sealed(tmp_path, 2).folder
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][trick] = {"bytes": 0, "sha256": ""}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert checkpoints.newest(tmp_path)[0] is None


def test_what_has_changed_since_is_named():
    checkpoint = checkpoints.Checkpoint(None, 4, {"base model": "abc", "training.beta": 0.1})
    checkpoints.refuse_if_changed(checkpoint, {"base model": "abc", "training.beta": 0.1, "new": 1})
    with pytest.raises(StudioError, match=r"base model \(was abc, is def\); training.beta \(was 0.1, is None\)"):
        checkpoints.refuse_if_changed(checkpoint, {"base model": "def"})
