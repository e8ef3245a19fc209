"""For all tests: no connection leaves this machine, and no hub is asked unless a test brings its own."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from studio import gpu  # noqa: E402

if not gpu.cards():  # without a card Triton's kernels are interpreted; Triton reads this when it is imported
    os.environ.setdefault("TRITON_INTERPRET", "1")

# For the workers as well, which inherit the environment. Set before any library reads it.
_home = tempfile.mkdtemp(prefix="orpo-studio-tests-")
os.environ |= {"HF_HOME": _home, "HF_HUB_DISABLE_TELEMETRY": "1", "GRADIO_ANALYTICS_ENABLED": "False",
               "OMP_NUM_THREADS": "1", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_DISABLE_XET": "1", "GRADIO_TEMP_DIR": _home + "/gradio",
               "PYTHONPATH": str(PROJECT / "tests" / "guard") + os.pathsep + os.environ.get("PYTHONPATH", "")}
# The last one: the tests start hundreds of processes, and each would compile the studio's modules again.
for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "PYTHONDONTWRITEBYTECODE"):
    os.environ.pop(name, None)

sys.path.insert(0, str(PROJECT / "tests" / "guard"))
import sitecustomize  # noqa: E402, F401  (closes the network for this process; the workers import it by themselves)

_settled = {name: os.environ.get(name) for name in ("HF_HOME", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE",
                                                    "OMP_NUM_THREADS", "HF_TOKEN", "HF_HUB_DISABLE_IMPLICIT_TOKEN")}


def pytest_collection_finish():
    """A module that changes these when it is imported changes them for all tests, in whatever file they are, and for their workers."""
    if changed := [name for name, value in _settled.items() if os.environ.get(name) != value]:
        pytest.exit(f"Importing the tests changed {', '.join(changed)} in the environment.", returncode=3)


def pytest_sessionfinish():
    shutil.rmtree(_home, ignore_errors=True)


def pytest_collection_modifyitems(items):
    # In one process the browser's tests come last: playwright leaves an event loop running, in which no other can be run.
    items.sort(key=lambda item: (item.path.parent.name == "browser", item.get_closest_marker("long") is None))


@pytest.fixture
def hub(monkeypatch):
    """A Hub of our own on loopback; workers that are started meanwhile talk to it."""
    from tests.hub_server import Hub

    with Hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


@pytest.fixture
def this_hub(hub, monkeypatch):
    """The same Hub for the client in this process, which has read its address long ago."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    return hub


@pytest.fixture
def tries(request):
    """Counts what a test tries: kills, requests, texts. The table of faults adds them up."""
    return lambda count: request.node.user_properties.append(("tries", count))
