"""Models on their way from the Hub: cut, spoiled, asked for twice; and a Hub that fails, each failure in words of its own."""

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from studio import events, jobs, runs
from studio.jobs import PROJECT
from studio.practice import MODEL
from studio.summary import Summary
from tests.hub_wire import DRIP, HANG_UP, SPOIL
from tests.jobs_at_work import ended, heard, log_of, practice, said, until

FETCH = """
import sys
from studio.engine import snapshot
from studio.errors import explain
from studio.settings import ModelSettings
try:
    print(snapshot.of(ModelSettings(name="acme/tiny"), *sys.argv[1:]))
except Exception as error:
    sys.exit(explain(error, "acme/tiny"))
"""


def fetched(hub, home: Path, environment: dict[str, str] | None = None, program: str = FETCH, *token: str) -> subprocess.CompletedProcess:
    """What a process says that fetches the model into a cache of its own, as a worker does."""
    return subprocess.run([sys.executable, "-c", program, *token], cwd=PROJECT, capture_output=True, text=True, timeout=120,
                          env=os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(home)} | (environment or {}))


def is_whole(folder: str) -> bool:
    return all((Path(folder) / path.name).read_bytes() == path.read_bytes() for path in MODEL.iterdir())


def asked(hub, end: str) -> int:
    """How often something was fetched whose address ends so."""
    return sum(method == "GET" and path.endswith(end) for method, path in hub.requests)


@pytest.fixture
def model(hub):
    return hub.add_model("acme/tiny", MODEL)


@pytest.mark.fault("T44")
@pytest.mark.parametrize("ranges", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["the rest is sent", "all is sent anew"])
def test_a_download_that_is_cut_goes_on(hub, model, tmp_path, ranges, tries):
    hub.ranges = ranges
    cuts = (1, 10_000, 50_000)
    for at in cuts:
        hub.fail_next("resolve", HANG_UP, at_byte=at, times=2)
    done = fetched(hub, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert is_whole(done.stdout.strip())
    tries(2 * len(cuts))


@pytest.mark.fault("T44")
def test_a_file_that_came_damaged_is_refused_removed_and_fetched_anew(hub, model, tmp_path):
    """Of the right size: the Hub's client does not see it."""
    hub.fail_next("resolve", SPOIL, times=3)
    done = fetched(hub, tmp_path / "home")
    assert "of acme/tiny came damaged and went. Start again to fetch it anew." in done.stderr
    before = len(hub.requests)
    done = fetched(hub, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert is_whole(done.stdout.strip())
    fetched_anew = [path.rsplit("/", 1)[1] for method, path in hub.requests[before:] if method == "GET" and "/resolve/" in path]
    assert len(fetched_anew) == 3 + 1 and "model.safetensors" in fetched_anew, "The sound ones stay; the weights come when the texts are sound."


@pytest.mark.fault("T44")
def test_two_runs_that_want_one_model_fetch_it_once(hub, model, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: fetched(hub, tmp_path / "home"), range(2)))
    assert [one.returncode for one in done] == [0, 0], done[0].stderr + done[1].stderr
    assert is_whole(done[0].stdout.strip()) and asked(hub, "/model.safetensors") == 1


@pytest.mark.fault("T44")
@pytest.mark.parametrize("environment", [{"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}], ids=["no Hub", "told so"])
def test_a_model_that_is_here_needs_no_hub(hub, model, tmp_path, environment):
    assert fetched(hub, tmp_path / "home").returncode == 0
    before = len(hub.requests)
    done = fetched(hub, tmp_path / "home", environment)
    assert done.returncode == 0, done.stderr
    assert is_whole(done.stdout.strip()) and len(hub.requests) == before


@pytest.mark.slow
@pytest.mark.fault("T44")
def test_a_run_needs_no_hub_once_its_model_is_here(hub, model, tmp_path, monkeypatch):
    assert fetched(hub, tmp_path / "home").returncode == 0
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    run = runs.create(tmp_path / "runs", practice(**{"model.name": "acme/tiny"}))
    jobs.start(jobs.of(run))
    assert ended(run) == "finished", log_of(run)


# --- a Hub that fails -----------------------------------------------------------------------------------------------------


FAILURES = {
    "429": ("limiting requests", {}),
    "500": ("a problem of its own", {}),
    "503": ("a problem of its own", {}),
    "hang up": ("connection to the Hub broke", {}),
    "nobody there": ("is not on this machine and the Hub cannot be reached", {"HF_ENDPOINT": "http://127.0.0.1:9"}),
    "407": ("The proxy between", {"HF_ENDPOINT": "http://127.0.0.1:9", "HTTP_PROXY": "{hub}", "NO_PROXY": ""}),
    "no name": ("name of the Hub could not be looked up", {"HF_ENDPOINT": "http://hub.nowhere.invalid"}),
}
NO_SUCH_NAME = """
import socket
def lookup(host, *rest, **options):
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
socket.getaddrinfo = lookup
"""


@pytest.mark.fault("T40")
@pytest.mark.parametrize("how", [pytest.param(how, marks=() if how in ("429", "500", "nobody there") else pytest.mark.slow) for how in FAILURES])
def test_each_failure_of_the_hub_is_told_in_words_of_its_own(hub, model, tmp_path, how):
    words, environment = FAILURES[how]
    if how.isdigit() or how == "hang up":
        for name in ("info", "tree", "metadata"):
            hub.fail_next(name, int(how) if how.isdigit() else HANG_UP, times=50)
    done = fetched(hub, tmp_path / "home", {name: value.format(hub=hub.url) for name, value in environment.items()},
                   NO_SUCH_NAME + FETCH if how == "no name" else FETCH)
    told = done.stderr.splitlines()[-1]
    assert words in told and told.count(". ") >= 1
    others = {other for other, _ in FAILURES.values()} - {words}
    assert not [other for other in others if other in told]


@pytest.fixture
def waiting(hub, model, tmp_path, monkeypatch):
    """Starts a run that wants the model."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    run = runs.create(tmp_path / "runs", practice(**{"model.name": "acme/tiny"}))

    def start():
        jobs.start(jobs.of(run))
        return run

    yield start
    jobs.end(jobs.of(run))


@pytest.mark.slow
@pytest.mark.fault("T40")
def test_a_hub_that_answers_without_end_is_shown_as_a_download_and_the_run_can_be_stopped(hub, waiting):
    hub.fail_next("info", DRIP, times=50)
    run = waiting()
    until(lambda: asked(hub, "/api/models/acme/tiny/revision/main"))
    assert Summary(said(run)).phase == "downloading"
    assert heard(run, events.Entered)[0].at - heard(run, events.Started)[0].at < 10, "That much is on the page soon."
    jobs.stop(jobs.of(run))
    jobs.end(jobs.of(run))
    assert ended(run) == "stopped"


@pytest.mark.slow
@pytest.mark.fault("T40")
def test_a_hub_that_says_nothing_is_not_waited_for_without_end(waiting, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and that is all
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "1")
        run = waiting()
        assert ended(run) == "failed"
    assert heard(run, events.Failed)[0].reason == "The Hub did not answer in time. Start again in a few minutes."
