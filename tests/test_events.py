"""The event log: one line an event, and a reader that never trusts the last line."""

import json
import random
import subprocess
import sys
import threading

import pytest

from studio import events, jobs
from studio.events import Entered, Failed, Finished, Log, Stepped, append, last, parse, read
from studio.logs import Logs
from studio.summary import Summary, points
from studio.ui import runs_tab


@pytest.fixture
def log(tmp_path):
    return tmp_path / events.FILE


def test_what_is_appended_is_read_back_in_order(log):
    said = [Entered("training"), Stepped(1, {"loss": 2.5}, memory=10), Finished()]
    for event in said:
        append(log, event)
    assert read(log) == said


def test_a_log_that_is_not_there_is_empty(log):
    assert read(log) == []


def test_a_half_written_line_waits(log):
    append(log, Entered("loading"))
    whole = json.dumps({"event": "Entered", "at": 1.0, "phase": "training"})
    reader = Log(log)
    for cut in range(1, len(whole) + 1):
        with open(log, "ab") as file:
            file.write(whole[cut - 1: cut].encode())
        assert [event.phase for event in reader.read()] == ["loading"]
    with open(log, "ab") as file:
        file.write(b"\n")
    assert [event.phase for event in reader.read()] == ["loading", "training"]


@pytest.mark.fault("T24c")
def test_a_torn_line_spoils_only_itself(log):
    append(log, Entered("loading"))
    with open(log, "ab") as file:
        file.write(b'{"event": "Stepped", "st')
    append(log, Finished())
    reader = Log(log)
    assert [type(event) for event in reader.read()] == [Entered, Finished]
    assert reader.damaged == 1


@pytest.mark.parametrize("line", [b"\xff\xfe\x00", b"[]", b"null", b"3", b'{"event": "Exploded"}', b'{"event": "Stepped"}',
                                  b'{"event": {"a": 1}}', b'{"phase": "x"}'])
@pytest.mark.fault("T24c")
def test_a_line_that_is_not_ours_is_no_event(line):
    assert parse(line) is None


def test_fields_of_a_later_version_are_ignored():
    assert parse(b'{"event": "Entered", "at": 1.0, "phase": "x", "colour": "blue"}') == Entered("x", at=1.0)


def test_a_number_that_json_cannot_hold_becomes_a_gap(log):
    append(log, Stepped(3, {"loss": float("nan"), "grad_norm": float("inf"), "epoch": 1.0}))
    assert read(log)[0].metrics == {"loss": None, "grad_norm": None, "epoch": 1.0}


def test_a_line_is_parsed_once(log, monkeypatch):
    for step in range(100):
        append(log, Stepped(step, {}))
    reader, parsed = Log(log), []
    monkeypatch.setattr(events, "parse", lambda line: parsed.append(line) or parse(line))
    reader.read()
    reader.read()
    append(log, Finished())
    reader.read()
    assert len(parsed) == 101


def test_a_reader_notices_that_the_log_began_anew(log):
    append(log, Entered("merging"))
    reader = Log(log)
    reader.read()
    assert not reader.replaced
    log.unlink()
    append(log, Entered("x"))
    assert reader.replaced


GARBAGE = (b"\x00" * 4096, b"\xff\xfe\x00\xd8", b'{"event": "Stepped", "st', "ä".encode()[:1], b"[" * 100_000, b"x" * 2_000_000, b'{"event": "Stepped"}',
           b'{"event": "Stepped", "step": 3}\x00', b"\x1b[31m\r", b"NaN")


@pytest.mark.fault("T24c")
@pytest.mark.parametrize("seed", range(5))
def test_garbage_anywhere_in_a_log_spoils_no_point_of_the_curves_and_is_told_once(log, seed, tries):
    dice, wanted = random.Random(seed), []
    for step in range(1, 41):
        if dice.random() < 0.4:
            with open(log, "ab") as file:
                file.write(dice.choice(GARBAGE) + dice.choice((b"", b"\n", b"\r\n", b"\n\n")))
        append(log, Stepped(step, {"loss": 1 / step}))
        wanted.append({"step": step, "split": "train", "metrics": {"loss": 1 / step}})
    logs = Logs()
    said = logs.read(log)
    assert points(said)["rows"] == wanted
    assert (damaged := logs.damaged(log)) > 0
    assert runs_tab.words(Summary(said), damaged).count("cannot be read and was passed over") == 1
    assert "passed over" not in runs_tab.words(Summary(said))
    tries(damaged)


@pytest.mark.parametrize("seed", range(5))
def test_where_a_job_stands_is_known_from_a_few_of_its_events(log, seed):
    dice, brief = random.Random(seed), Logs(only=events.STANDING)
    said = [events.Queued, lambda: events.Started("cpu", {}), lambda: Stepped(1, {"loss": 1.0}), lambda: Stepped(2, {"loss": 0.5}), events.Finished,
            lambda: events.Stopped(2), lambda: events.Failed("It could not. Try again.")]
    append(log, events.Queued())
    for _ in range(40):
        append(log, dice.choice(said)())
        if dice.random() < 0.2:
            with open(log, "ab") as file:
                file.write(dice.choice(GARBAGE))
        job = jobs.Job("train", log.parent)
        assert jobs.status(job, brief.read(log)) == jobs.status(job, events.read(log))
    assert not any(isinstance(event, Stepped) for event in brief.read(log))
    assert len(brief.read(log)) < len(events.read(log))


def test_of_many_logs_only_those_asked_for_last_are_remembered(tmp_path, monkeypatch):
    read, logs = [], Logs(most=2)
    for name in "abc":
        append(tmp_path / name, Stepped(1, {}))
    monkeypatch.setattr(events, "parse", lambda line, parse=events.parse: read.append(line) or parse(line))
    for name, parsed in (("a", 1), ("b", 2), ("a", 2), ("c", 3), ("a", 3), ("b", 4)):
        assert [event.step for event in logs.read(tmp_path / name)] == [1]
        assert len(read) == parsed


WRITER = """
import sys
from pathlib import Path
from studio.events import Sampled, append
for number in range(150):
    append(Path(sys.argv[1]), Sampled(number, sys.argv[2], "x" * (7 * number), "y" * 20_000))
"""
READER = """
import sys
from pathlib import Path
from studio.events import Log
log = Log(Path(sys.argv[1]))
while len(log.read()) < 1500:
    pass
print(len(log.read()), log.damaged)
"""


@pytest.mark.fault("T36")
def test_ten_processes_write_and_five_read_and_nothing_is_lost(log, tries):
    started = [subprocess.Popen([sys.executable, "-c", program, str(log), str(number)], cwd=jobs.PROJECT, stdout=subprocess.PIPE, text=True)
               for program, count in ((READER, 5), (WRITER, 10)) for number in range(count)]
    outcomes = [process.communicate(timeout=120)[0] for process in started]
    assert outcomes == ["1500 0\n"] * 5 + [""] * 10
    said = read(log)
    assert all([event.step for event in said if event.prompt == str(number)] == list(range(150)) for number in range(10))
    tries(15)


@pytest.mark.fault("T36")
def test_readers_and_a_writer_do_not_disturb_each_other(log):
    outcomes = []

    def watch():
        reader = Log(log)
        while not isinstance(last(reader.read(), Finished), Finished):
            pass
        outcomes.append((len(reader.read()), reader.damaged))

    watchers = [threading.Thread(target=watch) for _ in range(3)]
    for watcher in watchers:
        watcher.start()
    for step in range(500):
        append(log, Stepped(step, {"loss": 1.0}))
    append(log, Finished())
    for watcher in watchers:
        watcher.join(timeout=20)
        assert not watcher.is_alive()
    assert outcomes == [(501, 0)] * 3


def test_the_last_event_of_a_kind_is_found():
    said = [Entered("a"), Failed("x"), Entered("b")]
    assert last(said, Entered) is said[2]
    assert last(said, events.LAST_WORDS) is said[1]
    assert last(said, Finished) is None
