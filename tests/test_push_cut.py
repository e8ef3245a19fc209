"""A push that dies anywhere: what was trained stays as it is, and asked for again it is one commit, whole and once."""

import random
import shutil
import signal

import pytest

from studio import events, jobs, processes, runs
from studio.engine.push import push
from studio.engine.worker import Desk
from studio.practice import MODEL
from studio.runs import Run
from studio.share import FILE, PushRequest
from studio.ui import share_tab
from studio.ui.studio import Studio
from tests.hub_wire import HANG_UP, TAKE_AND_HANG_UP
from tests.jobs_at_work import ended, heard, log_of, practice, said, until
from tests.tiny_run import tiny_base, tuned_run
from tests.visitors import contents

STATIONS = ("whoami", "info", "create", "validate", "preupload", "batch", "lfs", "verify", "commit")
"""The requests of a push, in order."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run on a local base, to be copied."""
    return tuned_run(tmp_path_factory.mktemp("runs"), tiny_base(tmp_path_factory.mktemp("base")))


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished.folder, tmp_path / finished.name)
    (tmp_path / finished.name / "push").mkdir()
    return Run(tmp_path / finished.name)


def trained(run: Run) -> dict[str, str]:
    """What a push finds there."""
    return {name: content for name, content in contents(run.folder).items() if not name.startswith("push") and name != ".lock"}


def asked(run: Run, repo: str) -> None:
    (run.job("push") / FILE).write_text(PushRequest(repo=repo).to_yaml(), encoding="utf-8")


def pushed(run: Run, token: str) -> bool:
    """One push in this process, with the Hub's own client; whether it came to its end."""
    try:
        push(Desk(run.job("push"), {"token": token}))
    except Exception:  # what it is told as is under test elsewhere
        return False
    return True


def is_whole_and_once(hub, run: Run, repo: str) -> bool:
    files = hub.repos[repo].files()
    return len(hub.repos[repo].commits) == 2 and files["adapter_model.safetensors"] == (run.adapter / "adapter_model.safetensors").read_bytes()


@pytest.mark.fault("T41")
@pytest.mark.parametrize("station", [pytest.param(name, marks=() if name in ("lfs", "commit") else pytest.mark.slow) for name in STATIONS])
def test_a_push_that_dies_at_any_request_is_repeated_into_one_commit(this_hub, run, station, tries):
    token, before = this_hub.add_user("ada"), trained(run)
    for at, how in enumerate((500, HANG_UP, TAKE_AND_HANG_UP)):
        asked(run, f"tuned-{at}")
        this_hub.objects.clear()
        this_hub.fail_next(station, how)
        first = pushed(run, token)
        assert not any(fault.times for fault in this_hub.faults), "The fault has happened."
        assert first or pushed(run, token)
        assert is_whole_and_once(this_hub, run, f"ada/tuned-{at}"), (station, how)
    assert trained(run) == before
    tries(3)


@pytest.mark.slow
@pytest.mark.fault("T41")
def test_a_push_that_dies_at_any_byte_is_repeated_into_one_commit(this_hub, run, tries):
    token, before = this_hub.add_user("ada"), trained(run)
    size = (run.adapter / "adapter_model.safetensors").stat().st_size
    places = [0, 1, size - 1, size, *random.Random(1).sample(range(size), 26)]
    for place in places:
        this_hub.objects.clear()
        asked(run, f"tuned-{place}")
        this_hub.fail_next("lfs", HANG_UP, at_byte=place)
        assert pushed(run, token) or pushed(run, token)
        assert is_whole_and_once(this_hub, run, f"ada/tuned-{place}"), place
    assert trained(run) == before
    tries(len(places))


@pytest.mark.slow
@pytest.mark.fault("T41")
def test_a_push_that_is_killed_is_told_as_such_and_repeated_into_one_commit(hub, run, tries):
    token, before, dice = hub.add_user("ada"), trained(run), random.Random(7)
    job, shown = jobs.of(run, "push"), ""
    for kill in range(8):
        asks = PushRequest(repo=f"tuned-{kill}").to_yaml()
        hub.requests.clear()
        jobs.request(job, asks, {"token": token})
        wanted = dice.randrange(1, 14)
        until(lambda wanted=wanted: len(hub.requests) >= wanted or jobs.status(job) in jobs.OVER)
        if jobs.status(job) != "finished":
            processes.read(job.folder).signal_all(signal.SIGKILL)
            until(lambda: jobs.status(job) in ("crashed", "finished"), 5)
        if jobs.status(job) == "crashed":
            shown = share_tab.state(Studio(run.folder.parent, None), run, "push")
            assert "ended without a word" in shown and "What was there before is untouched" in shown
            jobs.request(job, asks, {"token": token})
            assert ended(run, "push") == "finished", log_of(run, "push")
        assert is_whole_and_once(hub, run, f"ada/tuned-{kill}"), kill
    assert shown, "None was killed in time."
    assert trained(run) == before
    tries(8)


@pytest.mark.slow
@pytest.mark.fault("T41", "T42")
def test_a_token_that_expires_while_a_run_trains_keeps_it_from_being_pushed_and_from_nothing_else(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    hub.add_model("ada/tiny", MODEL, private=True)
    token = hub.add_user("ada")
    run = runs.create(tmp_path / "runs", practice(**{"model.name": "ada/tiny", "training.push_checkpoints_to": "ada/checkpoints"}))
    jobs.start(jobs.of(run), {"token": token})
    until(lambda: heard(run, events.Stepped))
    del hub.users[token]
    assert ended(run) == "finished", log_of(run)
    jobs.request(jobs.of(run, "push"), PushRequest(repo="tuned").to_yaml(), {"token": token})
    assert ended(run, "push") == "failed"
    shown = share_tab.state(Studio(run.folder.parent, None), run, "push")
    assert "Trained, not pushed: The Hub did not accept the token." in shown
    steps = len(heard(run, events.Stepped))
    jobs.request(jobs.of(run, "push"), PushRequest(repo="tuned").to_yaml(), {"token": hub.add_user("ada")})
    assert ended(run, "push") == "finished", log_of(run, "push")
    assert is_whole_and_once(hub, run, "ada/tuned")
    assert len(heard(run, events.Stepped)) == steps and jobs.status(jobs.of(run), said(run)) == "finished", "It is not trained again."
