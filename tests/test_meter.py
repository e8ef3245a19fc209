"""What a Space costs is told, and it is paused once nothing is left to do: never while something is at work, never where runs would be lost."""

import subprocess
import sys

import pytest

from studio import jobs, meter, processes
from studio.errors import StudioError
from studio.jobs import Queue
from studio.meter import Meter
from tests.jobs_at_work import practice, until

SPACE = "ada/studio"


@pytest.fixture
def space(this_hub, monkeypatch):
    """A Space of ada's with an L4 and a bucket."""
    monkeypatch.setenv("SPACE_ID", SPACE)
    monkeypatch.setenv("ORPO_STUDIO_RUNS", "/data/runs")
    return this_hub.add_space(SPACE, "l4x1")


@pytest.fixture
def clock(monkeypatch):
    """Time that passes when it is told to."""
    class Clock:
        now = 1000.0

        def monotonic(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(meter, "time", clock)
    return clock


def metered(root, is_at_work=lambda: False) -> Meter:
    """A meter that looks only when it is asked to."""
    return Meter(Queue(root), is_at_work, look_seconds=3600)


def pauses(hub) -> int:
    return sum(path.endswith("/pause") for _, path in hub.requests)


def test_a_space_is_paused_once_nothing_was_at_work_for_the_time_that_was_asked_for(hub, space, clock, tmp_path):
    working = [True]
    watched = metered(tmp_path, lambda: working[0])
    watched.arm(hub.add_user("ada"), 15)
    clock.now += 3600
    assert not watched.look(), "A run may take as long as it takes."
    working[0] = False
    clock.now += 14 * 60
    assert not watched.look()
    clock.now += 61
    assert watched.look() and space["stage"] == "PAUSED" and pauses(hub) == 1
    assert watched.armed is None and not watched.look() and pauses(hub) == 1


def test_what_it_costs_is_told_before_and_when_it_will_be_paused(hub, space, clock, tmp_path):
    watched, token = metered(tmp_path), hub.add_user("ada")
    assert "billed by the minute" in watched.in_words()[1]
    watched.arm(token, 15)
    watched._look_seconds = 20
    clock.now += 30
    assert watched.in_words()[0] == "warn" and "paused once nothing has been at work for 15 minutes" in watched.in_words()[1]
    clock.now += 330
    told = watched.in_words()[1]
    assert "(L4) has run for 6 min 00 s" in told and "about $0.08 at $0.80 an hour" in told and "paused in 9 min 00 s unless something starts" in told
    assert token not in told + repr(watched.armed) + repr(vars(watched))
    watched.disarm()
    clock.now += 24 * 3600
    assert not watched.look() and pauses(hub) == 0


def test_a_hub_that_fails_is_told_and_asked_again(hub, space, clock, tmp_path):
    watched = metered(tmp_path)
    watched.arm(hub.add_user("ada"), 5)
    clock.now += 301
    hub.fail_next("pause", 500, times=20)
    assert not watched.look() and watched.in_words()[0] == "bad" and "could not be paused" in watched.in_words()[1]
    hub.faults.clear()
    assert watched.look() and space["stage"] == "PAUSED"


@pytest.mark.parametrize(("who", "minutes", "told"), [
    ("ada", 4, "Enter 5 to 1440 minutes"), ("ada", None, "Enter 5 to 1440"), ("ada", "x", "Enter 5 to 1440"), ("ada", True, "Enter 5"),
    ("nobody", 15, "needs a Hub token with write access"), ("reader", 15, "can only read"), ("eve", 15, "ada/studio")])
def test_what_cannot_be_asked_for_is_told(hub, space, tmp_path, who, minutes, told):
    token = {"nobody": "", "reader": hub.add_user("ada", role="read")}.get(who) if who in ("nobody", "reader") else hub.add_user(who)
    watched = metered(tmp_path)
    with pytest.raises(StudioError, match=told):
        watched.arm(token, minutes)
    assert watched.armed is None and pauses(hub) == 0


def test_where_a_pause_would_lose_the_runs_it_is_refused(hub, space, tmp_path, monkeypatch):
    monkeypatch.delenv("ORPO_STUDIO_RUNS")
    with pytest.raises(StudioError, match="forgets its disk, and with it all runs. Attach a storage bucket"):
        metered(tmp_path).arm(hub.add_user("ada"), 15)
    monkeypatch.delenv("SPACE_ID")
    with pytest.raises(StudioError, match="does not run on a Space"):
        metered(tmp_path).arm(hub.add_user("ada"), 15)


def test_a_run_that_waits_and_whatever_a_living_process_works_on_is_work(tmp_path):
    queue = Queue(tmp_path)
    assert not meter.at_work(queue)
    run = queue.add(practice())
    assert meter.at_work(queue), "It waits."
    jobs.stop(jobs.of(run))
    assert not meter.at_work(queue)
    run.job("merge").mkdir()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True) as process:
        processes.write(run.job("merge"), processes.of(process.pid))
        assert meter.at_work(queue)
        process.communicate(b"\n")
    assert not meter.at_work(queue)


def test_a_meter_that_watches_pauses_by_itself(hub, space, clock, tmp_path):
    watched = Meter(Queue(tmp_path), lambda: False, look_seconds=0.05)
    watched.arm(hub.add_user("ada"), 5)
    clock.now += 301
    until(lambda: space["stage"] == "PAUSED")
    watched.close()
