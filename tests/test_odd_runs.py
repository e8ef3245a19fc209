"""One odd folder among many runs: it is listed with its reason, can be thrown away, and is never the end of the list or of a page."""

import json
import os
import time
from pathlib import Path

import pytest

from studio import about, events, jobs, runs, trash
from studio.errors import SettingsError, StudioError
from studio.jobs import Queue
from studio.run_index import Index
from studio.ui import run_view, runs_tab, unreadable_card
from studio.ui.page import listed
from studio.ui.studio import Studio
from tests.jobs_at_work import practice

DEEP = "[" * 100_000
ODD_SETTINGS = {
    "a number of five thousand digits": lambda path: path.write_text(f"training: {{max_steps: {'9' * 5000}}}\n", encoding="utf-8"),
    "one in hexadecimal, which can be read and not printed": lambda path: path.write_text(f"training: {{max_steps: 0x{'f' * 5000}}}\n", encoding="utf-8"),
    "one by sixties": lambda path: path.write_text(f"training: {{max_steps: 1{':59' * 5000}}}\n", encoding="utf-8"),
    "lists within lists": lambda path: path.write_text(f"model: {DEEP}", encoding="utf-8"),
    "mappings within mappings": lambda path: path.write_text("".join(f"{' ' * depth}a:\n" for depth in range(3000)), encoding="utf-8"),
    "another encoding": lambda path: path.write_bytes("model: {name: größe}".encode("utf-16")),
    "a megabyte of nothing": lambda path: path.write_bytes(bytes(2**20)),
    "more than any settings": lambda path: path.write_bytes(b"# " + b"x" * (5 * 2**20)),
    "a token as the model's name": lambda path: path.write_text(f"model: {{name: hf_{'A1b2' * 9}}}\n", encoding="utf-8"),
    "a list where settings belong": lambda path: path.write_text("- 1\n- 2\n", encoding="utf-8"),
    "a list where a number belongs": lambda path: path.write_text("training: {beta: [1, 2]}\n", encoding="utf-8"),
    "a text where a section belongs": lambda path: path.write_text("training: fast\n", encoding="utf-8"),
    "a folder": lambda path: path.mkdir(),
    "a pipe": lambda path: os.mkfifo(path),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
    "nothing": lambda path: None,
}


@pytest.fixture
def studio(tmp_path):
    return Studio(tmp_path, Queue(tmp_path))


def finished(root: Path, title: str = "") -> runs.Run:
    run = runs.create(root, practice())
    events.append(jobs.of(run).log, events.Finished())
    if title:
        about.write(run, title, "")
    return run


def odd(root: Path, make) -> runs.Run:
    """A finished run whose settings.yaml is something else now."""
    run = finished(root)
    (run.folder / "settings.yaml").unlink()
    make(run.folder / "settings.yaml")
    return run


@pytest.mark.fault("T85")
@pytest.mark.parametrize("make", ODD_SETTINGS.values(), ids=ODD_SETTINGS.keys())
def test_a_run_whose_settings_cannot_be_read_is_listed_with_the_reason_and_all_others_as_before(studio, make):
    sound = [finished(studio.home, f"Sound {number}") for number in range(3)]
    bad, begun = odd(studio.home, make), time.monotonic()
    names = [name for _, name in listed(studio)]
    assert sorted(names) == sorted(run.name for run in sound), "All others, and not this one."
    [(name, reason)] = unreadable_card.listed(studio)
    assert name == bad.name and len(reason) > 10 and "Traceback" not in reason
    assert not studio.queue.unfinished() and studio.queue.advance() is None
    assert studio.queue.add(practice(), once_within=60).name not in names, "A new run is asked for beside it."
    assert time.monotonic() - begun < 5
    trash.throw_away(bad)
    assert unreadable_card.listed(studio) == [] and trash.thrown_away(studio.home) == [bad.name]


@pytest.mark.fault("T85")
def test_a_link_among_the_runs_is_told_and_thrown_away_as_a_link(studio, tmp_path):
    elsewhere = finished(tmp_path / "elsewhere")
    (studio.home / "linked-run").symlink_to(elsewhere.folder)
    assert unreadable_card.listed(studio) == [("linked-run", "is a link that leads elsewhere")]
    trash.throw_away(runs.Run(studio.home / "linked-run"))
    assert not (studio.home / "linked-run").is_symlink() and (elsewhere.folder / "settings.yaml").is_file()


def test_a_folder_that_has_nothing_of_a_run_is_not_spoken_of(studio):
    (studio.home / "holiday-pictures").mkdir()
    (studio.home / "users").mkdir()
    (studio.home / "temporary").mkdir()
    (studio.home / "temporary" / "settings.yaml").touch()
    assert unreadable_card.listed(studio) == [] == listed(studio)


@pytest.mark.fault("T85")
def test_notes_and_other_files_of_a_run_may_be_anything(studio):
    run = finished(studio.home)
    for file, text in (("about.json", '{"title": "x", "notes": ' + DEEP), ("worker.json", DEEP), ("exit.json", DEEP), ("turn", "nan"),
                       ("votes.jsonl", DEEP), ("pulse", "\udcff"), ("held_out.jsonl", DEEP)):
        (run.folder / file).write_text(text, encoding="utf-8", errors="surrogateescape")
    assert [name for _, name in listed(studio)] == [run.name]
    for file in ("about.json", "worker.json", "votes.jsonl", "held_out.jsonl"):
        (run.folder / file).unlink()
        os.mkfifo(run.folder / file)
    assert [name for _, name in listed(studio)] == [run.name]
    assert shown(studio, run).top


LINES = ('{"event": "Stepped", "step": "three", "metrics": {}}', '{"event": "Stepped", "step": 3, "metrics": [1]}',
         '{"event": "Planned", "pairs": 1, "held_out": 1, "steps": "many"}', '{"event": "Stepped", "step": 1, "metrics": {"loss": "low"}}',
         '{"event": "Started", "device": 3, "versions": null}', '{"event": "Evaluated", "step": 1, "model": "tuned", "metrics": {}, "margins": 7}',
         '{"event": "Stepped", "at": Infinity, "step": 1, "metrics": {}}', f'{{"event": "Stepped", "step": {"9" * 4000}, "metrics": {{}}}}',
         '{"event": "Flew", "height": 3}', DEEP, '{"event": "Progressed", "done": null, "total": 1, "unit": "rows"}')
"""What no worker of ours would write."""


def shown(studio, run):
    seen = run_view.view(studio, run, runs_tab.pulse.Pulse(), [])
    return runs_tab.rendered(studio, seen)


@pytest.mark.fault("T85")
@pytest.mark.parametrize("line", LINES, ids=range(len(LINES)))
def test_an_event_with_values_of_other_kinds_is_passed_over_and_counted(studio, line):
    run = runs.create(studio.home, practice())
    with open(jobs.of(run).log, "a", encoding="utf-8") as log:
        log.write(line + "\n")
    for event in (events.Planned(20, 4, 9), events.Stepped(7, {"loss": 1.0}), events.Finished()):
        events.append(jobs.of(run).log, event)
    html = shown(studio, run)
    assert "7 / 9" in html.top and "cannot be shown" not in html.top and "One line of this run" in html.told


@pytest.mark.fault("T85")
def test_a_log_that_is_a_device_or_without_an_end_of_line_holds_nobody_up(studio, monkeypatch):
    run = finished(studio.home)
    jobs.of(run).log.unlink()
    jobs.of(run).log.symlink_to("/dev/zero")
    assert events.read(jobs.of(run).log) == []
    monkeypatch.setattr(events, "AT_ONCE", 1000)
    path = studio.home / "long.jsonl"
    path.write_bytes(b"x" * 2500 + b"\n")
    events.append(path, events.Finished())
    log = events.Log(path)
    for _ in range(4):
        said = log.read()
    assert [type(one) for one in said] == [events.Finished] and log.damaged


# --- other versions ---------------------------------------------------------------------------------------------------


def of_version(root: Path, changes: dict[str, dict]) -> runs.Run:
    """A finished run of another version, whose settings say this as well."""
    run, values = finished(root), practice().model_dump()
    for section, more in changes.items():
        values[section] = values.get(section, {}) | more
    (run.folder / "settings.yaml").write_text(json.dumps(values), encoding="utf-8")
    return run


@pytest.mark.fault("T85")
def test_a_run_of_a_newer_version_opens_and_what_is_not_known_is_said(studio):
    run = of_version(studio.home, {"training": {"momentum": 0.5}, "wings": {"count": 2}, "adapter": {"rank": 4096}, "evaluation": {"keep": "median"}})
    assert run.settings.training == practice().training and run.settings.adapter.rank == 4096
    assert [name for _, name in listed(studio)] == [run.name]
    told = shown(studio, run).top
    for words in ("Another version of the studio", "training.momentum (0.5)", "wings", "adapter.rank", "at most 1024", "evaluation.keep"):
        assert words in told
    with pytest.raises(StudioError, match="cannot be trained further"):
        run.stored.refuse_to_train()
    run.stored.refuse_to_load()  # its base is known


@pytest.mark.fault("T85")
def test_a_run_of_an_older_version_opens_with_the_settings_it_has(studio):
    run = finished(studio.home)
    (run.folder / "settings.yaml").write_text("model: {name: practice}\ntraining: {gradient_checkpointing: true}\n", encoding="utf-8")
    assert run.settings.training.gradient_checkpointing == "full" and run.stored.is_exact
    assert [name for _, name in listed(studio)] == [run.name]


def test_a_base_that_only_another_version_can_load_is_not_loaded_as_something_else(studio):
    run = of_version(studio.home, {"model": {"quantization": "fp4"}})
    assert run.settings.model.quantization == "fp4"
    with pytest.raises(StudioError, match="does not know how to load its base. model.quantization: fp4"):
        run.stored.refuse_to_load()


def test_what_a_form_refuses_for_what_it_is_stays_refused_in_a_run(studio):
    for changes in ({"model": {"name": "../../etc"}}, {"data": {"source": "https://example.org/x"}}, {"adapter": {"start_from": "../x"}}):
        run = of_version(studio.home, changes)
        with pytest.raises(SettingsError):
            run.settings  # noqa: B018


# --- read once --------------------------------------------------------------------------------------------------------


def test_a_run_is_read_again_only_when_something_of_it_has_changed(studio, monkeypatch):
    several = [finished(studio.home) for _ in range(5)]
    later = [time.time_ns() + 10 * 10**9]
    index = Index(studio.home, lambda run, said: jobs.status(jobs.of(run), said), clock=lambda: later[0])
    index.entries(studio.home)
    opened = []
    real = about.of
    monkeypatch.setattr(about, "of", lambda run: opened.append(run.name) or real(run))
    index.entries(studio.home)
    assert opened == []
    about.write(several[2], "Better", "")
    assert {entry.title for entry in index.entries(studio.home)} == {"", "Better"} and opened == [several[2].name]
    events.append(jobs.of(several[3]).log, events.Queued())
    assert [entry.run for entry in index.entries(studio.home) if entry.status == "queued"] == [several[3]]




def test_two_hundred_runs_that_are_over_take_a_few_milliseconds_to_look_at(studio):
    for _ in range(200):
        finished(studio.home)
    index = Index(studio.home, lambda run, said: jobs.status(jobs.of(run), said), clock=lambda: time.time_ns() + 10 * 10**9)
    index.entries(studio.home)
    begun = time.process_time()
    for _ in range(20):
        assert len(index.entries(studio.home)) == 200
    assert (time.process_time() - begun) / 20 < 0.015, "A look every half second is then under 3 % of a core; it took 0.004 s."
