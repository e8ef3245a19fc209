"""Many pages that watch: a timer returns nothing that a timer takes in, sessions are bounded, and a hundred watchers share one reading."""


import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from itertools import count as count_up
from itertools import cycle

import psutil
import pytest
from gradio_client import Client

import app
from studio import events, jobs, runs
from studio.jobs import Queue
from studio.readings import Readings, Views
from studio.ui import sessions
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


def test_no_two_events_that_run_again_for_what_came_meanwhile_listen_to_the_same_change(config):
    """Gradio 6.31 then runs all of them again for each that waited: two changes in quick succession chase each other for ever."""
    listening = Counter((component, event) for one in config["dependencies"] if one["backend_fn"] and one["trigger_mode"] == "always_last"
                        for component, event in one["targets"] if component is not None)
    names = {one["id"]: one["props"].get("elem_id") or one["type"] for one in config["components"]}
    assert not [(names[component], event) for (component, event), count in listening.items() if count > 1]


def test_no_event_makes_statistics_of_all_that_came_before(tmp_path):
    """Gradio 6.31 makes them after every event in its queue, of up to 10,000 earlier ones."""
    queue = build(Studio(tmp_path, Queue(tmp_path)))._queue
    queue.events_recorded = 10_000
    remembered = [{"function": "look", "status": "success", "process_time": 0.01, "time": 0.0, "session_hash": "page"}]
    assert queue.ANALYTICS_MAX_EVENTS == 1 and queue.compute_analytics_summary(remembered) == {"functions": {}}


def test_an_answer_in_two_parts_is_sent_without_waiting_for_the_first_one_s_receipt():
    with app.listening("127.0.0.1") as door, socket.create_connection(door.getsockname()):
        taken, _ = door.accept()
        with taken:
            assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_what_a_page_is_remembered_by_is_small_and_bounded(config, tmp_path, monkeypatch):
    monkeypatch.setattr(sessions, "OPEN_KEPT", 5)
    monkeypatch.setattr(sessions, "CLOSED_KEPT", 2)
    page = build(Studio(tmp_path, Queue(tmp_path)))
    held = sessions.Sessions(page)
    for number in range(4):
        held[f"closed {number}"].is_closed = True
    held["open"][next(iter(page.blocks))]  # it knows the page's components
    assert sorted(held.session_data) == ["closed 2", "closed 3", "open"], "Of those that are closed the last ones may come back."
    for number in range(20):
        held[f"caller {number}"]
    assert len(held.session_data) == 5 == len(held.time_last_used), "A script that makes a client for each call is forgotten again."


def test_a_page_remembers_its_states_and_one_version_of_each_component(tmp_path):
    page = build(Studio(tmp_path, Queue(tmp_path)))
    session = sessions.Sessions(page)["page"]
    state = next(block for block in page.blocks.values() if block.stateful)
    field = next(block for block in page.blocks.values() if type(block).__name__ == "Textbox")
    session[state._id] = (1, 2)
    assert session[state._id] == (1, 2)
    for number in range(50):
        version = type(field)(label=f"version {number}", render=False)
        session[field._id] = version
        session[version._id] = version  # as Gradio does when that version is taken in
    assert session[field._id].label == "version 49" and len(session.blocks_config.blocks) == len(page.blocks)
    assert page.blocks[field._id] is field, "Other pages keep theirs."


def test_one_reading_of_a_run_is_shared_by_all_until_something_changes(tmp_path):
    run = runs.create(tmp_path, practice())
    log, readings = jobs.of(run).log, Readings(most=2)
    events.append(log, events.Stepped(1, {"loss": 1.0}))
    first = readings.of(log)
    assert readings.of(log) is first and first.summary is readings.of(log).summary
    events.append(log, events.Stepped(2, {"loss": 0.5}))
    second = readings.of(log)
    assert second.version != first.version and len(first.said) == 2 and second.points(1) == {"rows": [{"step": 2, "split": "train", "metrics": {"loss": 0.5}}], "total": 2}
    log.unlink()
    events.append(log, events.Queued())
    assert len(readings.of(log).said) == 1 and readings.of(log).version not in (first.version, second.version)


def test_an_answer_is_worked_out_once_for_what_it_depends_on():
    views, asked = Views(most=2), []
    for key in ("a", "a", "b", "a", "c", "b"):
        assert views.of(key, lambda key=key: asked.append(key) or key.upper()) == key.upper()
    assert asked == ["a", "b", "c", "b"], "Of more than two the one not asked for longest is worked out again."


# --- a studio with many pages -----------------------------------------------------------------------------------------


@pytest.fixture
def studio(tmp_path):
    finished(tmp_path / "runs", 20)
    studio = StudioProcess(tmp_path / "runs").start()
    yield studio
    studio.kill()


def memory(studio: StudioProcess) -> float:
    """Megabytes."""
    return psutil.Process(studio.process.pid).memory_info().rss / 1e6


@pytest.mark.slow
@pytest.mark.fault("T90")
def test_five_thousand_ticks_of_every_tab_and_five_hundred_sessions_leave_the_memory_as_it_was(studio, tries):
    at_work(studio.runs)

    async def from_many(count: int, look: Callable) -> None:
        """So many looks, each from another of fifty addresses: each has a rate of its own."""
        async with AsyncExitStack() as stack:
            clients = cycle([await stack.enter_async_context(client(studio.url, studio.headers, address=f"127.0.1.{place + 1}"))
                             for place in range(50)])
            page = Page(next(clients), await layout_of(next(clients)))
            await page.arrive()
            for _ in range(count):
                page.http = next(clients)
                await look(page)
            assert not page.failures, page.failures[:3]

    async def ticks(count: int) -> None:
        place = count_up()
        await from_many(count, lambda page: page.look([*page.layout.timers][next(place) % len(page.layout.timers)]))

    async def visits(count: int) -> None:
        await from_many(count, lambda page: Page(page.http, page.layout).arrive())

    asyncio.run(ticks(500))
    asyncio.run(visits(60))
    before = memory(studio)
    asyncio.run(ticks(5000))
    after_ticks = memory(studio)
    asyncio.run(visits(500))
    after_visits = memory(studio)
    assert after_ticks - before < 15, f"{before:.0f} MB, and {after_ticks:.0f} MB after 5,000 ticks."
    assert after_visits - after_ticks < 80, f"{after_ticks:.0f} MB, and {after_visits:.0f} MB after 500 sessions (300 MB at 0.6 MB each)."
    tries(5500)


@pytest.mark.slow
@pytest.mark.fault("T90")
def test_a_script_that_makes_a_client_for_each_call_is_not_remembered(studio):
    name = at_work(studio.runs).name
    for number in range(70):
        if number == 10:
            before = memory(studio)
        caller = Client(studio.url, verbose=False, headers=studio.headers)
        assert caller.predict(name, api_name="/status")["status"] == "running"
        caller.close()
    assert memory(studio) - before < 15


@pytest.mark.slow
@pytest.mark.fault("T90")
def test_a_hundred_watchers_of_one_run_have_nineteen_of_twenty_ticks_within_a_second(studio, tries):
    ends = threading.Event()
    threading.Thread(target=stepping, args=[at_work(studio.runs), ends], daemon=True).start()
    found = asyncio.run(watched(studio, 100, 20))
    ends.set()
    tries(int(found["ticks"]))
    assert found["p95"] < 1, found


@pytest.mark.slow
@pytest.mark.fault("T85")
def test_an_idle_page_beside_two_hundred_runs_takes_under_three_hundredths_of_a_core(tmp_path):
    finished(tmp_path / "runs", 200)
    studio = StudioProcess(tmp_path / "runs").start()
    try:
        time.sleep(3)  # what was written just now is looked at more closely
        assert asyncio.run(watched(studio, 1, 30))["core"] < 0.03
    finally:
        studio.kill()
