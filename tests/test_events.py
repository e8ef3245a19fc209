"""The event log: one line an event, and a reader that never trusts the last line."""

import json
import threading

import pytest

from studio import events
from studio.events import Entered, Failed, Finished, Log, Stepped, append, last, parse, read


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
