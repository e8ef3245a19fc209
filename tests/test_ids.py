"""Texts that want to be paths, commands, options or addresses, in every field of every event: nothing happens outside the studio."""

import os
import subprocess

import pytest

from studio import jobs, runs
from studio.access import Users
from studio.jobs import PROJECT
from tests.studio_at_work import StudioProcess
from tests.visitors import Visitor, contents

PASSWORD = "password of bert"
TEXTS = ["../../canary", "/etc/hostname", "C:\\canary", "\\\\host\\share", "a/../../canary", "a\0b", "x" * 300, "CON", ".", "..", "-rf", "~", "${HOME}",
         "..\u2215..\u2215canary", "\uff0e\uff0e/canary", "canary.", "{canary}", "%2e%2e%2fcanary", "\u202egnp.canary", "runs\n../canary"]
COMMANDS = ["; touch {0}", "$(touch {0})", "`touch {0}`", "| touch {0}", "& touch {0}", "\ntouch {0}\n", "'; touch {0}; '", '"; touch {0}; "',
            "--output_dir={0}", "-c touch {0}", "@{0}", "{{{{ cycler.__init__.__globals__.os.system('touch {0}') }}}}", "!!python/object/apply:os.system ['touch {0}']"]
ADDRESSES = ["http://127.0.0.1:9/x", "//127.0.0.1:9", "http://2130706433", "http://0x7f000001/", "http://[::1]:9", "http://user@127.0.0.1:9/",
             "file:///etc/passwd", "ftp://127.0.0.1", "hf://datasets/x", "https://169.254.169.254/latest/meta-data"]
SOME_OR_ALL = pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "all"])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder that holds the studio's and, beside it, what nothing may touch."""
    place = tmp_path_factory.mktemp("place")
    (place / "canary").mkdir()
    (place / "canary" / "settings.yaml").write_text("untouched", encoding="utf-8")
    (place / "runs").mkdir()
    Users(place / "runs").add("bert", PASSWORD)
    return place


@pytest.fixture(scope="module")
def bert(place):
    studio = StudioProcess(place / "runs").start()
    yield Visitor(studio.url).sign_in("bert", PASSWORD)
    studio.kill()
    for run in runs.everywhere(place / "runs"):
        jobs.stop(jobs.of(run))


def outside(place) -> dict[str, str]:
    return {name: content for name, content in contents(place).items() if not name.startswith("runs")}


def tried(bert: Visitor, texts: list[str]) -> int:
    """Set off every event that takes text with every text; how often."""
    taking_text = [event for event in bert.different_events if set(event.types) - {"state", "number", "checkbox"}]
    assert len(taking_text) > 40
    for text in texts:
        for event in taking_text:
            bert.call(event, bert.values_with(event, text))
    return len(texts) * len(taking_text)


@SOME_OR_ALL
@pytest.mark.fault("T55")
def test_no_text_makes_reads_or_removes_anything_outside(bert, place, every, tries):
    before, project = outside(place), subprocess.check_output(["git", "status", "--short"], cwd=PROJECT)
    tries(tried(bert, TEXTS[::every]))
    assert outside(place) == before
    assert subprocess.check_output(["git", "status", "--short"], cwd=PROJECT) == project
    room = runs.room(place / "runs", "bert")
    assert all(runs.NAME.fullmatch(folder.name) or folder.name.startswith(".") for folder in (room.iterdir() if room.is_dir() else ()))
    assert not any(path.is_symlink() for path in (place / "runs").rglob("*"))


@SOME_OR_ALL
@pytest.mark.fault("T56", "T57")
def test_no_text_is_a_command_or_an_option(bert, place, every, tries):
    canary = place / "touched"
    tries(tried(bert, [command.format(canary) for command in COMMANDS[::every]]))
    assert not canary.exists()
    arguments = subprocess.check_output(["ps", "-eo", "args"], text=True)
    assert "touch" not in "".join(line for line in arguments.splitlines() if "studio.engine" in line)


@SOME_OR_ALL
@pytest.mark.fault("T58")
def test_no_text_is_an_address_that_is_asked(bert, place, every, tries):
    """The workers' network is closed as well (tests/guard): an attempt leaves its words in their logs."""
    tries(tried(bert, ADDRESSES[::every]))
    for log in (place / "runs").rglob("*.log"):
        assert "A test tried to" not in log.read_text(encoding="utf-8", errors="replace"), log


def test_a_run_s_name_is_looked_for_in_one_folder_only(bert, place):
    (status,) = [event for event in bert.events if event.name == "status"]
    for name in ("../../../canary", str(place / "canary"), "canary", "users", ".secret", os.pardir):
        assert "There is no run" in bert.call(status, [name])
