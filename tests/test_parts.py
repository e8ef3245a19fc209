"""The pieces of HTML and the frames of the charts: escaped, named for screen readers, and without scripts."""

import math
import re

import pytest

from studio.ui import charts, parts

EVIL = '<script>"&'
SAFE = "&lt;script&gt;&quot;&amp;"
ASKED = [{"role": "user", "content": EVIL}]
ANSWER = [{"role": "assistant", "content": EVIL}]


@pytest.mark.parametrize("piece", [
    parts.header(EVIL, EVIL), parts.chip(EVIL, "running"), parts.card(EVIL, ""), parts.progress(1, 2, EVIL),
    parts.phases([EVIL], EVIL), parts.tiles([(EVIL, EVIL)]), parts.note("good", EVIL), parts.empty(EVIL),
    parts.pair_card(ASKED, parts.text(EVIL), ""), parts.table([EVIL], [[EVIL]])])
def test_what_people_wrote_is_escaped(piece):
    assert "<script" not in piece
    assert SAFE in piece


def test_the_header_has_the_only_h1_and_a_logo_that_is_not_read_out():
    assert parts.header("Studio", "Claim").count("<h1>") == 1
    assert 'aria-hidden="true"' in parts.header("Studio", "Claim")


@pytest.mark.parametrize("status", parts.STATUS_WORDS)
def test_a_badge_says_the_status_in_a_word(status):
    assert f'badge-{status}">{parts.STATUS_WORDS[status]}<' in parts.badge(status)


def test_an_unknown_status_is_called_so():
    assert "unknown" in parts.badge(None)


def test_a_progress_bar_tells_its_share():
    assert 'aria-valuenow="25"' in parts.progress(5, 20, "Step 5 of 20")
    assert 'aria-valuenow="100"' in parts.progress(30, 20, "more than planned")
    assert "aria-valuenow" not in parts.progress(None, None, "Starting")


def test_phases_are_done_current_or_to_do():
    shown = parts.phases(["loading", "training", "saving"], "training", {"loading", "training"})
    assert re.findall(r'<li class="(\w+)"', shown) == ["done", "current", "todo"]
    assert shown.count('aria-current="step"') == 1


def test_a_phase_that_comes_again_is_still_to_do():
    names = ["loading", "training", "evaluating"]
    assert re.findall(r'<li class="(\w+)"', parts.phases(names, "training", set(names))) == ["done", "current", "todo"]
    assert re.findall(r'<li class="(\w+)"', parts.phases(names, None, set(names))) == ["done", "done", "done"]


def test_an_answer_of_several_turns_says_who_speaks():
    assert parts.spoken(ANSWER) == EVIL
    assert "Question: two" in parts.spoken([*ANSWER, {"role": "user", "content": "two"}])


def test_a_table_names_its_rows_and_columns():
    shown = parts.table(("Setting", "Value"), [("rank", 8)])
    assert '<th scope="row">rank</th><td>8</td>' in shown
    assert shown.count('scope="col"') == 2


def test_every_panel_has_a_frame_with_title_and_caption():
    frames = charts.markup()
    for panel in charts.PANELS:
        assert f'id="chart-{panel.id}"' in frames
        assert f"<h3>{panel.title}</h3>" in frames
        assert panel.caption in frames


def test_gradio_finds_nothing_to_fill_in_in_the_frames():
    assert not re.search(r"[`\\]|\$\{|\{\{", charts.markup())


def test_lines_of_one_panel_differ_without_colour():
    for panel in charts.PANELS:
        assert len({line.dash for line in panel.lines}) == len({line.name for line in panel.lines}) == len(panel.lines)


def test_only_drawn_metrics_travel_and_what_is_no_number_is_null():
    row = {"step": 3, "split": "train", "metrics": {"loss": 1.23456789, "nll_loss": math.nan, "grad_norm": math.inf,
                                                    "epoch": 0.5, "learning_rate": None}}
    assert charts.slim(row)["metrics"] == {"loss": 1.23457, "nll_loss": None, "grad_norm": None, "learning_rate": None}


def test_the_library_is_served_from_its_wheel():
    assert charts.PLOTLY.is_file()
