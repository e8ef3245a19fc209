"""Many pages that watch: a timer returns nothing that a timer takes in, sessions are bounded, and a hundred watchers share one reading."""

import asyncio
import threading
import time

import psutil
import pytest
from gradio_client import Client

from studio import events, jobs, runs
from studio.jobs import Queue
from studio.readings import Readings, Views
from studio.ui import served, sessions
from studio.ui.page import build
from studio.ui.studio import Studio
from tests.benchmarks.pages import at_work, finished, stepping, watched
from tests.jobs_at_work import practice
from tests.open_pages import Page, client, layout_of
from tests.studio_at_work import StudioProcess


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """The built page's own description."""
    home = tmp_path_factory.mktemp("built")
    return build(Studio(home, Queue(home))).get_config_file()


@pytest.mark.fault("T90")
def test_no_timer_returns_what_a_timer_takes_in(config):
    """Gradio 6.31 keeps another copy of each component that was returned, whenever it is taken in again."""
    kinds = {one["id"]: one["type"] for one in config["components"]}
    ticks = [one for one in config["dependencies"] if one["backend_fn"] and any(event == "tick" for _, event in one["targets"])]
    taken_in = {place for one in ticks for place in one["inputs"] if kinds.get(place) != "state"}
    assert len(ticks) >= 6
    for one in ticks:
        returned = {place for place in one["outputs"] if kinds.get(place) != "state"}
        assert not returned & taken_in, f"{one['api_name']} returns {[kinds[place] for place in returned & taken_in]}"
