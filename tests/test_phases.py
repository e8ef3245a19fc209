"""A run's phases: a tick means that a phase is behind it, and nothing else carries one."""

import re

import pytest

from studio import phases
from studio.events import Entered, Evaluated, Failed, Finished, Queued, Resumed, Saved, Started, Stepped, Stopped
from studio.phases import BASE
from studio.ui import parts


def entered(*names):
    return [Queued(), Started("cpu", {}), *map(Entered, names)]


def marks(said, status):
    """What each phase carries, of those that carry anything."""
    found = phases.of_run(said, status)
    shown = re.findall(r'<li class="(\w+)"[^>]*>([^<]+)', parts.phases(phases.NAMES, found.current, found.done, found.ended_at, found.how))
    return {name: mark for mark, name in shown if mark != "todo"}


BEFORE = ("downloading", "tokenizing", "loading")
DONE = dict.fromkeys(BEFORE, "done")


def test_measuring_the_base_before_training_is_a_phase_of_its_own_and_not_the_last_one():
    assert marks(entered(*BEFORE, "evaluating"), "running") == DONE | {BASE: "current"}
    assert marks(entered(*BEFORE, "evaluating", "training"), "running") == DONE | {BASE: "done", "training": "current"}


def test_a_look_between_steps_is_part_of_training():
    assert marks(entered(*BEFORE, "training", "evaluating"), "running") == DONE | {"training": "current"}
    assert marks(entered(*BEFORE, "training", "evaluating", "training"), "running") == DONE | {"training": "current"}


@pytest.mark.parametrize("status", ["failed", "crashed"])
@pytest.mark.parametrize("reached", [BEFORE[:1], BEFORE[:2], BEFORE, (*BEFORE, "training"), (*BEFORE, "training", "saving")])
def test_a_phase_that_failed_carries_no_tick_and_those_after_it_never_ran(reached, status):
    said = [*entered(*reached), *([Failed("no")] if status == "failed" else [])]
    assert marks(said, status) == dict.fromkeys(reached[:-1], "done") | {reached[-1]: "failed"}


def test_a_run_that_failed_after_the_base_was_measured_evaluated_nothing():
    """The case: 0.0 % -> – with a tick at evaluating."""
    said = [*entered(*BEFORE, "evaluating"), Evaluated(0, "base", {}), Entered("training"), Stepped(1, {}), Failed("blew up")]
    assert marks(said, "failed") == DONE | {BASE: "done", "training": "failed"}


def test_a_stopped_run_was_stopped_in_training_and_saved():
    said = [*entered(*BEFORE, "evaluating", "training"), Stepped(5, {}), Entered("saving"), Saved(5, "adapter"), Stopped(5)]
    assert marks(said, "stopped") == DONE | {BASE: "done", "training": "stopped", "saving": "done"}
    assert marks([*entered("downloading"), Stopped(0)], "stopped") == {"downloading": "stopped"}
    assert marks([Queued(), Stopped(0)], "stopped") == {}


def test_a_finished_run_has_done_what_it_did():
    said = entered(*BEFORE, "evaluating", "training", "evaluating", "training", "saving", "evaluating", "saving", "evaluating")
    assert marks([*said, Finished()], "finished") == DONE | {BASE: "done", "training": "done", "saving": "done", "evaluating": "done"}
    nothing_held_out = [*entered(*BEFORE, "training", "saving"), Finished()]
    assert marks(nothing_held_out, "finished") == DONE | {"training": "done", "saving": "done"}


def test_a_resumed_run_begins_its_phases_again():
    said = [*entered(*BEFORE, "evaluating", "training", "saving"), Stopped(5), Queued(), Started("cpu", {}), Entered("downloading")]
    assert marks(said, "running") == {"downloading": "current"}
    said += [Entered("tokenizing"), Entered("loading"), Resumed(5), Entered("training")]
    assert marks(said, "running") == DONE | {"training": "current"}


def test_the_end_of_a_phase_is_told_to_those_who_do_not_see_the_sign():
    assert "training<span class=\"unseen\"> (failed here)</span>" in parts.phases(["training"], None, (), "training", "failed")
