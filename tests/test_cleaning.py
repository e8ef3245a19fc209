"""What is not wanted any more is deleted from the page, by its owner and nothing else with it; a person's own files are never touched."""

import pytest

from studio import events, jobs, runs, trash, uploads
from studio.access import LOCAL, Users, Visitor
from studio.engine import sources
from studio.errors import BusyError, DataError, StudioError
from studio.guard import PAGES
from studio.jobs import Queue
from studio.preferences.mix import Part
from studio.ui import train_tab
from studio.ui.studio import Studio
from studio.ui.trash_card import remove_upload
from tests.jobs_at_work import practice
from tests.studio_at_work import StudioProcess
from tests.visitors import Visitor as Browser
from tests.visitors import contents


def thrown(room) -> runs.Run:
    run = runs.create(room, practice())
    events.append(run.folder / events.FILE, events.Stopped(step=0))
    trash.throw_away(run)
    return run


def brought(root, tmp_path, name: str = "pairs.jsonl", content: bytes = b"{}\n"):
    (tmp_path / name).write_bytes(content)
    return uploads.keep(root, tmp_path / name)


def test_a_run_in_the_trash_is_deleted_for_good_and_nothing_that_it_links_to(tmp_path):
    room = tmp_path / "runs"
    run, other = thrown(room), thrown(room)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("mine", encoding="utf-8")
    (room / trash.FOLDER / run.name / "link").symlink_to(outside)
    trash.delete(room, run.name)
    assert trash.thrown_away(room) == [other.name] and (outside / "file").exists()
    assert [path.name for path in (room / trash.FOLDER).iterdir()] == [other.name], "Nothing of it is left on the disk."
    for wrong in (run.name, "../outside", "", "users"):
        with pytest.raises(StudioError, match="no run"):
            trash.delete(room, wrong)


def test_an_upload_is_deleted_unless_a_run_is_about_to_read_it(tmp_path):
    home = tmp_path / "runs"
    home.mkdir()
    person = Studio(home, Queue(home), who=lambda: LOCAL)
    kept, other = brought(home, tmp_path), brought(home, tmp_path, "other.jsonl", b"[]\n")
    run = person.find(train_tab.begin(person, practice(**{"data.source": str(kept)})))
    with pytest.raises(BusyError, match=f"{run.name} is queued and reads this file"):
        remove_upload(person, str(kept))
    jobs.stop(jobs.of(run))
    remove_upload(person, str(kept))
    assert uploads.kept(home) == [other] and not kept.parent.exists()
    for wrong in (str(kept), str(tmp_path / "pairs.jsonl"), "/etc/hostname", None):
        with pytest.raises(DataError, match="no such upload"):
            remove_upload(person, wrong)


def test_nobody_deletes_what_is_another_s(tmp_path):
    for name in ("anna", "bert"):
        Users(tmp_path).add(name, f"password of {name}")
    theirs = runs.room(tmp_path, "anna")
    kept, run = brought(theirs, tmp_path), thrown(theirs)
    bert = Studio(tmp_path, Queue(tmp_path), who=lambda: Visitor("bert"), has_users=True)
    before = contents(theirs)
    with pytest.raises(DataError):
        remove_upload(bert, str(kept))
    with pytest.raises(StudioError):
        trash.delete(bert.root, run.name)
    assert contents(theirs) == before


def test_an_unreadable_file_in_a_folder_of_one_s_own_named_like_ours_stays(tmp_path):
    """Also a copy of a room, which somebody keeps."""
    own = tmp_path / ".uploads" / "0123456789ab" / "pairs.parquet"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"\0\1\2 no JSON")
    kept = brought(tmp_path / "runs", tmp_path, "broken.parquet", b"\0\1\2 no JSON")
    copied = tmp_path / "copy" / ".uploads" / kept.parent.name / kept.name
    copied.parent.mkdir(parents=True)
    for path in kept.parent.iterdir():
        (copied.parent / path.name).write_bytes(path.read_bytes())
    for path in (own, copied):
        with pytest.raises(DataError) as refused:
            list(sources.opened(Part(str(path))).lines)
        assert path.exists() and "was removed" not in str(refused.value)
        assert not uploads.discard(path)
    assert uploads.discard(kept) and not kept.exists(), "What was uploaded here goes."


def test_the_page_empties_trash_and_uploads_after_a_tick(tmp_path):
    Users(tmp_path).add("anna", "password of anna")
    room = runs.room(tmp_path, "anna")
    one, two, kept = thrown(room), thrown(room), brought(room, tmp_path)
    studio = StudioProcess(tmp_path).start()
    try:
        anna = Browser(studio.url).sign_in("anna", "password of anna")
        events_by = {event.name: event for event in anna.events}
        assert "Tick" in anna.call(events_by["empty"], [False, None, None]) and len(trash.thrown_away(room)) == 2
        anna.call(events_by["delete_run"], [True, one.name, None])
        assert trash.thrown_away(room) == [two.name]
        anna.call(events_by["empty"], [True, two.name, None])
        anna.call(events_by["delete_upload"], [True, None, str(kept)])
        assert trash.thrown_away(room) == [] and uploads.kept(room) == []
    finally:
        studio.kill()


def test_the_number_of_fetches_is_bounded(tmp_path):
    """Each /config is worked out anew; the bound is looked at before that."""
    from studio.doors import Doors
    from studio.guard import Guard
    from studio.refused import Refused

    guard = Guard(None, Doors(tmp_path, True, frozenset({"127.0.0.1"}), 1), frozenset(), tmp_path)

    class Asked:
        method, client = "GET", None

        class url:  # noqa: N801
            path = "/config"

    for _ in range(PAGES[0]):
        guard._refuse_rates(Asked, Visitor("anna"))
    with pytest.raises(Refused, match="too many requests"):
        guard._refuse_rates(Asked, Visitor("anna"))
    guard._refuse_rates(Asked, Visitor("bert"))
