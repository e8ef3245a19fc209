"""A run's title and notes: kept beside its settings, shown as text, never more than fits, never half written."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from studio import about, runs, whole
from studio.about import About
from studio.errors import StudioError
from studio.jobs import Queue
from studio.summary import Summary
from studio.ui import overlay_card, page, runs_tab
from studio.ui.studio import Studio
from tests.jobs_at_work import practice

WEIRD = "\u202e<b>Zoë's  \n 👩‍👧 “run”</b>"


@pytest.fixture
def run(tmp_path):
    return runs.create(tmp_path, practice())


def test_a_title_stands_beside_the_name_wherever_the_run_is_listed(run, tmp_path):
    studio, other = Studio(tmp_path, Queue(tmp_path)), runs.create(tmp_path, practice())
    before = (run.folder / "settings.yaml").read_bytes()
    about.write(run, " Kinder\nanswers ", "\nlr was too high\n")
    assert about.of(run) == About("Kinder answers", "\nlr was too high\n") and about.of(other) == About()
    assert (f"Kinder answers · {run.name} (waiting)", run.name) in page.listed(studio)
    assert (f"{other.name} (waiting)", other.name) in page.listed(studio)
    head = runs_tab.head(run, "queued", Summary([]))
    assert "Kinder answers</h2>" in head and run.name in head and "lr was too high" not in head
    assert "Kinder answers · " in overlay_card.table([run, other], lambda run: [])
    assert (run.folder / "settings.yaml").read_bytes() == before and runs.find(tmp_path, run.name) == run
    about.write(run, "", "")
    assert about.of(run) == About() and about.label(run) == run.name


def test_any_text_is_kept_and_shown_as_text(run):
    about.write(run, WEIRD, WEIRD)
    assert about.of(run) == About("<b>Zoë's 👩‍👧 “run”</b>", WEIRD), "what turns the direction would turn the name beside it"
    assert "<b>" not in runs_tab.head(run, "queued", Summary([])) and "&lt;b&gt;" in runs_tab.head(run, "queued", Summary([]))


def test_more_than_can_be_shown_is_refused_and_nothing_lost(run):
    about.write(run, "good", "fine")
    for title, notes, words in (("x" * 81, "", "title would have 81 characters"), ("", "x" * 20_001, "notes would have 20,001")):
        with pytest.raises(StudioError, match=words):
            about.write(run, title, notes)
    assert about.of(run) == About("good", "fine")


def test_what_cannot_be_written_is_told(run, monkeypatch):
    about.write(run, "good", "fine")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(whole.os, "replace", full)
    with pytest.raises(StudioError, match="No space left on device.*Free some space"):
        about.write(run, "new", "")
    assert about.of(run) == About("good", "fine") and not list(run.folder.glob(".about*"))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"title": 3}', b'{"title": null, "notes": ["x"]}', b"\xff\xfe", b"null"])
def test_a_spoiled_file_is_no_title(run, content):
    (run.folder / about.FILE).write_bytes(content)
    assert about.of(run).title == ""


def test_many_may_write_at_once_and_one_of_them_holds(run):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: about.write(run, f"title {number}", "x" * 5000), range(64)))
    assert about.of(run).title.startswith("title ") and about.of(run).notes == "x" * 5000 and not list(run.folder.glob(".about*"))
