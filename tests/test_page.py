"""The page over HTTP: scripts can start, watch and stop a run, and the page process stays light."""

import time

import httpx
import psutil
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from studio import jobs, runs
from tests.jobs_at_work import practice, until
from tests.studio_at_work import StudioProcess


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    studio = StudioProcess(tmp_path_factory.mktemp("studio") / "runs").start()
    yield studio
    studio.kill()


@pytest.fixture(scope="module")
def client(studio):
    return Client(studio.url, verbose=False, headers=studio.headers)


def test_a_run_is_started_watched_and_finished(client, studio):
    name = client.predict(practice().model_dump(), api_name="/start")
    seen = until(lambda: (state := client.predict(name, api_name="/status"))["status"] in jobs.OVER and state)
    assert seen["status"] == "finished" and seen["step"] == seen["steps"] == 4
    assert 0 <= seen["base"]["rewards/accuracies"] <= 1 and seen["tuned"]["n"] == 8
    assert runs.find(studio.runs, name).adapter.is_dir()


@pytest.mark.slow
def test_a_run_is_stopped(client):
    name = client.predict(practice(**{"training.max_steps": 2000}).model_dump(), api_name="/start")
    until(lambda: client.predict(name, api_name="/status")["step"] > 0)
    client.predict(name, api_name="/stop")
    assert until(lambda: client.predict(name, api_name="/status")["status"] in jobs.OVER)
    assert client.predict(name, api_name="/status")["status"] == "stopped"
    client.predict(name, api_name="/resume")
    assert client.predict(name, api_name="/status")["status"] != "stopped"
    client.predict(name, api_name="/stop")


@pytest.mark.parametrize(("settings", "told"), [
    ({"training": {"batch_size": 0}}, "training.batch_size: 0 is out of range. Enter at least 1."),
    ({"training": {"optimiser": "x"}}, "There is no such setting"),
    ({"surprise": {}}, "There is no such setting"),
    ({"model": {"device": "gpu"}}, "A GPU was asked for"),
])
def test_settings_that_cannot_run_are_refused_in_words_and_make_no_run(client, studio, settings, told):
    before = runs.listed(studio.runs)
    with pytest.raises(AppError, match=told):
        client.predict(settings, api_name="/start")
    assert runs.listed(studio.runs) == before


@pytest.mark.parametrize("name", ["nope", "../..", "/etc/passwd", ""])
def test_a_run_that_is_not_there_is_told(client, name):
    with pytest.raises(AppError, match="There is no run"):
        client.predict(name, api_name="/status")


def test_only_what_scripts_need_is_public(client):
    assert set(client.view_api(return_format="dict")["named_endpoints"]) == {"/start", "/status", "/stop", "/resume"}


@pytest.fixture(scope="module")
def config(studio) -> dict:
    """The page as a browser is told it."""
    return httpx.get(studio.url + "/config", headers=studio.headers).json()


def test_what_shows_no_progress_has_no_place_to_show_it(config):
    wrong = [event["api_name"] for event in config["dependencies"]
             if event["api_visibility"] == "private" and event["show_progress"] == "hidden" and event["show_progress_on"] != []]
    assert not wrong, f"A browser updates every output of these at each event of the page: {wrong}"


@pytest.mark.parametrize("name", ["runs", "compare", "share"])
def test_a_tab_that_comes_to_the_front_looks_at_once(config, name):
    tab = next(part["id"] for part in config["components"] if part["type"] == "tabitem" and part["props"].get("id") == name)
    told = [text for event in config["dependencies"] if [tab, "select"] in event["targets"] and not event["backend_fn"] for text in event["outputs"]]
    looking = [[tab, "select"], *([text, "change"] for text in told)]
    heads = {part["id"] for part in config["components"] if part["props"].get("elem_id") in ("run-head", "compare-first", "share-head")}
    assert any(event["backend_fn"] and heads & {*event["outputs"]} and any(target in looking for target in event["targets"])
               for event in config["dependencies"])


def test_the_page_process_stays_under_400_megabytes_and_starts_quickly(studio):
    memory = psutil.Process(studio.process.pid).memory_info().rss
    print(f"page process: {memory / 1e6:.0f} MB, served after {studio.seconds_to_page:.1f} s")
    assert memory < 400e6
    assert studio.seconds_to_page < 20


def test_a_studio_that_nobody_uses_hardly_computes(studio):
    def taken() -> float:
        return sum(psutil.Process(studio.process.pid).cpu_times()[:2])

    before, seconds = taken(), 3
    time.sleep(seconds)
    assert (taken() - before) / seconds < 0.045, "As a share of a core; Gradio as it comes takes 0.06."
