"""Each user has a share of the studio, and what one of them fills is never what another waits for."""

import os

import pytest

from studio import events, jobs, processes, runs, shares, uploads
from studio.access import LOCAL, AccessError, Users, Visitor
from studio.doors import Sessions
from studio.errors import BusyError, NoSpaceError
from studio.jobs import Job, Queue
from studio.shares import Shares
from studio.ui import train_tab
from studio.ui.studio import Studio
from tests.jobs_at_work import practice
from tests.studio_at_work import StudioProcess
from tests.visitors import Visitor as Browser


@pytest.fixture(autouse=True)
def small():
    before = shares.each
    shares.give(Shares(disk=2e6, waiting=2, processes=2, events=10, pages=3))
    shares._measured.clear()
    yield
    shares.give(before)


def studio_of(home, name: str) -> Studio:
    return Studio(home, Queue(home), who=lambda: Visitor(name) if name else LOCAL, has_users=bool(name))


def test_a_user_s_runs_that_wait_are_bounded_and_another_user_s_are_their_own(tmp_path):
    anna, bert = studio_of(tmp_path, "anna"), studio_of(tmp_path, "bert")
    names = [train_tab.begin(anna, practice(**{"data.seed": seed})) for seed in (1, 2)]
    with pytest.raises(BusyError, match="2 of your runs wait or train"):
        train_tab.begin(anna, practice(**{"data.seed": 3}))
    train_tab.begin(bert, practice())
    jobs.stop(jobs.of(anna.find(names[0])))
    train_tab.begin(anna, practice(**{"data.seed": 3}))
    stopped = anna.find(names[0])
    with pytest.raises(BusyError, match="of your runs wait or train"):
        anna.resume(stopped)


def test_the_person_at_a_machine_without_users_has_all_of_it(tmp_path):
    person = studio_of(tmp_path, "")
    (tmp_path / "large").write_bytes(b"x" * 3_000_000)
    for seed in range(4):
        train_tab.begin(person, practice(**{"data.seed": seed}))
    shares.refuse_another_process(tmp_path / "run" / "merge")


def test_a_user_s_disk_is_bounded_and_links_are_not_counted(tmp_path):
    room, other = runs.room(tmp_path, "anna"), runs.room(tmp_path, "bert")
    for folder in (room / ".uploads", other):
        folder.mkdir(parents=True)
    (tmp_path / "huge").write_bytes(b"x" * 3_000_000)
    (room / "link").symlink_to(tmp_path / "huge")
    (room / "folder").symlink_to(tmp_path)
    shares.refuse_disk(room, 1_000_000)
    with pytest.raises(NoSpaceError, match="your share of the disk is 0.0 GB"):
        shares.refuse_disk(room, 3_000_000)
    (room / ".uploads" / "pairs.jsonl").write_bytes(b"x" * 3_000_000)
    shares.forget_size(room)
    for refused in (lambda: shares.refuse_disk(room), lambda: shares.refuse_another_process(room / "a-run" / "merge"),
                    lambda: train_tab.begin(studio_of(tmp_path, "anna"), practice())):
        with pytest.raises(NoSpaceError, match="Empty the trash or delete uploads"):
            refused()
    shares.refuse_disk(other)


def test_a_user_s_workers_at_once_are_bounded(tmp_path):
    anna, bert = runs.room(tmp_path, "anna"), runs.room(tmp_path, "bert")
    for place in (anna / "one" / "merge", anna / ".examined" / "0123456789abcdef"):
        place.mkdir(parents=True)
        processes.write(place, processes.of(os.getppid()))
    with pytest.raises(BusyError, match="2 processes of yours are at work"):
        jobs.request(Job("merge", anna / "two" / "merge"), "")
    assert not (anna / "two").exists()
    shares.refuse_another_process(bert / "one" / "merge")


def test_pages_without_number_make_their_owner_s_forgotten_and_nobody_else_s():
    sessions = Sessions()
    sessions.claim("anna's page", Visitor("anna"))
    for place in range(100):
        sessions.claim(f"page {place}", Visitor("bert"))
    with pytest.raises(AccessError):
        sessions.claim("anna's page", Visitor("bert"))
    assert len(sessions._names) == 1 + 3


def test_the_flags_give_the_shares_and_an_upload_beyond_them_is_refused(tmp_path):
    Users(tmp_path).add("anna", "password of anna")
    studio = StudioProcess(tmp_path, arguments=("--user-disk", "0.002")).start()
    try:
        anna = Browser(studio.url).sign_in("anna", "password of anna")
        small, large = ({"files": ("pairs.jsonl", b"x" * size)} for size in (1_000_000, 1_500_000))
        assert anna.http.post("/gradio_api/upload", files=small).status_code == 200
        refused = anna.http.post("/gradio_api/upload", files=large)
        assert refused.status_code == 507 and "your share of the disk" in refused.text
        arrived = uploads.arriving(tmp_path / "temporary" / str(studio.port), "anna")
        assert len([path for path in arrived.rglob("*") if path.is_file()]) == 1
    finally:
        studio.kill()


def test_an_administrator_is_a_user_too_and_events_say_why(tmp_path):
    run = runs.create(runs.room(tmp_path, "carla"), practice())
    events.append(run.folder / events.FILE, events.Stopped(step=0))
    carla = Studio(tmp_path, Queue(tmp_path), who=lambda: Visitor("carla", admin=True), has_users=True)
    for seed in (1, 2):
        train_tab.begin(carla, practice(**{"data.seed": seed}))
    with pytest.raises(BusyError):
        train_tab.begin(carla, practice(**{"data.seed": 3}))
