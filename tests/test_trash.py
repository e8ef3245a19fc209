"""A run that is thrown away is gone from the list and whole in the trash, and nothing else is touched."""

import pytest

from studio import events, jobs, runs, trash
from studio.errors import BusyError, StudioError
from tests.jobs_at_work import practice
from tests.visitors import contents


@pytest.fixture
def over(tmp_path):
    """A run that has ended, beside another one."""
    run = runs.create(tmp_path, practice())
    events.append(jobs.of(run).log, events.Finished())
    runs.create(tmp_path, practice())
    return run


@pytest.mark.fault("T68")
def test_a_run_is_thrown_away_whole_and_put_back_as_it_was(over, tmp_path):
    before, others = contents(over.folder), [run for run in runs.listed(tmp_path) if run != over]
    trash.throw_away(over)
    assert runs.listed(tmp_path) == others and trash.thrown_away(tmp_path) == [over.name]
    assert trash.put_back(tmp_path, over.name) == over
    assert contents(over.folder) == before and trash.thrown_away(tmp_path) == []


@pytest.mark.fault("T68")
def test_a_run_that_waits_or_is_at_work_is_not_thrown_away(tmp_path):
    run = runs.create(tmp_path, practice())
    with pytest.raises(BusyError, match="Stop it first"):
        trash.throw_away(run)
    assert run.folder.is_dir()


def test_a_merge_under_way_keeps_the_run_where_it_is(over):
    jobs.of(over, "merge").folder.mkdir()
    events.append(jobs.of(over, "merge").log, events.Queued())
    with pytest.raises(BusyError, match="merged, written or pushed"):
        trash.throw_away(over)


@pytest.mark.fault("T68")
def test_nothing_is_moved_through_a_link(over, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / trash.FOLDER).symlink_to(elsewhere)
    with pytest.raises(StudioError, match="Remove the link"):
        trash.throw_away(over)
    assert over.folder.is_dir() and not list(elsewhere.iterdir()) and trash.thrown_away(tmp_path) == []


@pytest.mark.parametrize("name", ["", "..", "../x", "no-such-run", ".secret"])
def test_only_what_is_in_the_trash_is_put_back(over, tmp_path, name):
    trash.throw_away(over)
    with pytest.raises(StudioError, match="in the trash"):
        trash.put_back(tmp_path, name)


def test_neither_way_replaces_another_run(over, tmp_path):
    trash.throw_away(over)
    (tmp_path / over.name).mkdir()
    with pytest.raises(StudioError, match="Another run is called"):
        trash.put_back(tmp_path, over.name)
