"""A run that would take hours on a CPU, or days anywhere, is asked about once; what it fits into is then no good news."""

import pytest

from studio import patience, runs
from studio.events import Tried
from studio.gpu import Place
from studio.jobs import Queue
from studio.pace import Forecast
from studio.patience import Wait
from studio.settings import Settings
from studio.shape import Shapes
from studio.ui import fit_card, long_run
from studio.ui.studio import Studio
from tests.tiny_models import saved, tiny_model

HOUR = 3600


@pytest.mark.parametrize(("hours", "on_cpu", "asks"), [(2.9, True, False), (3.1, True, True), (542, True, True), (3.1, False, False),
                                                       (47, False, False), (49, False, True)])
def test_a_wait_is_long_after_three_hours_on_a_cpu_and_two_days_on_a_card(hours, on_cpu, asks):
    assert Wait(Forecast(hours * HOUR / 2, hours * HOUR * 2, "arithmetic"), on_cpu).is_long == asks


def test_the_question_says_how_long_and_what_to_do_instead():
    told = Wait(Forecast(400 * HOUR, 1000 * HOUR, "arithmetic"), True).in_words()
    assert "about 17 to 42 days on this machine, by arithmetic" in told and "A GPU would do it" in told
    assert "by a trial" in Wait(Forecast(50 * HOUR, 60 * HOUR, "a trial"), False).in_words()


@pytest.fixture
def studio(tmp_path):
    return Studio(tmp_path / "runs", Queue(tmp_path / "runs"))


def endless(model="practice"):
    """The practice run a hundred thousand times over."""
    return Settings.from_form(**{"model.name": str(model), "training.epochs": 1000, "training.batch_size": 1, "training.accumulation": 1, "training.max_length": 1024,
                                 "model.device": "cpu"})


def test_start_asks_before_an_absurd_run_and_not_again_once_it_was_agreed_to(studio):
    [agreed, box, words] = long_run.asked(studio, endless(), "")
    assert agreed > 3 * HOUR and box.visible and "would take about" in words
    assert long_run.asked(studio, endless(), "", agreed) is None
    assert long_run.asked(studio, endless(), "", agreed / 2) is not None, "the form says more by now than what was agreed to"
    assert long_run.asked(studio, Settings.from_form(**{"training.max_length": 256, "model.device": "cpu"}), "") is None


def test_what_fits_and_takes_days_is_not_green(studio, monkeypatch):
    monkeypatch.setattr("studio.gpu.place", lambda settings: Place("cpu", "cpu", 10**12))  # whatever else this machine does just now
    shown = fit_card.shown(studio, endless().to_form())
    assert "takes very long" in shown and 'badge-finished">fits<' not in shown


def test_measured_steps_decide_where_there_are_some(studio):
    tried = Tried(memory=10**9, seconds=1000.0, step_tokens=100, all_tokens=10**6, pairs=1000, longest=100)
    settings, place = Settings(), Place("cpu", "cpu", 10**10)
    shown = fit_card._measured(studio, settings, Shapes().find(settings.model), place, tried)
    assert "takes very long" in shown and 'badge-finished">fits<' not in shown


def test_a_model_that_cannot_be_looked_up_is_asked_about_once(studio, this_hub):
    settings = Settings.from_form(**{"model.name": "nobody/nothing"})
    [agreed, _, words] = long_run.asked(studio, settings, "")
    assert "nobody/nothing was not found" in words and "not known whether this run fits" in words
    assert long_run.asked(studio, settings, "", agreed) is None


def test_a_model_on_this_machine_is_asked_about_like_any_other(studio, tmp_path):
    folder = saved(tiny_model("llama"), tmp_path / "tiny")
    assert long_run.asked(studio, Settings.from_form(**{"model.name": str(folder), "data.source": "practice"}), "") is None
    assert not runs.listed(studio.root)
    place = Place("cpu", "cpu", 10**10)
    short = patience.expected(studio.root, Settings(), Shapes().find(Settings().model), place, lambda log: [])
    long = patience.expected(studio.root, endless(), Shapes().find(Settings().model), place, lambda log: [])
    assert short.seconds < long.seconds
