"""Before the studio starts it looks whether its libraries are there."""

import subprocess
import sys

import pytest
import torch

from studio import installed
from studio.jobs import PROJECT


def test_here_nothing_is_missing():
    assert installed.missing() == ""


@pytest.mark.fault("T73")
@pytest.mark.parametrize(("have", "told"), [({"gradio": "5.49.1"}, "too old: gradio 5.49.1 (at least 6.31)"), ({"torch": "2.5.1+cu124"}, "too old: torch"),
                                            ({"argon2-cffi": None}, "missing: argon2-cffi"), ({"transformers": "4.57"}, "pip install -r requirements.txt")])
def test_what_is_missing_or_too_old_is_named_with_the_line_that_mends_it(monkeypatch, have, told):
    there = {name: "99" for name in (*installed.OLDEST, *installed._named())}
    monkeypatch.setattr(installed, "_installed", lambda name: (there | have)[name])
    assert told in installed.missing()


def test_newer_libraries_will_do(monkeypatch):
    monkeypatch.setattr(installed, "_installed", lambda name: "2.11.0+cu128" if name == "torch" else "99.0.0rc1")
    assert installed.missing() == ""


@pytest.mark.fault("T73")
def test_a_studio_without_its_libraries_says_so_instead_of_a_traceback():
    started = subprocess.run([sys.executable, "-S", "-E", "app.py"], cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert started.returncode != 0 and "missing: gradio" in started.stderr and "Traceback" not in started.stderr


def test_what_torch_was_built_for_is_read_without_importing_it():
    asked = "import sys; from studio.installed import torch_build; print(repr(torch_build()), 'torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", asked], cwd=PROJECT, capture_output=True, text=True, check=True).stdout.strip()
    assert said == f"{installed.TorchBuild(torch.__version__, torch.version.cuda or '', torch.version.hip or '')!r} False"
