"""The script of a run: short Python that takes the same steps without the studio."""

import ast
import json
import os
import re
import subprocess
import sys

import pytest

from studio import events, practice, script
from studio.errors import SettingsError
from studio.jobs import PROJECT, Queue
from studio.presets import all_presets
from studio.settings import Settings
from tests import jobs_at_work
from tests.jobs_at_work import ended, heard, log_of
from tests.tiny_run import tiny_base

STEPS = {"data.held_out": 0, "training.max_steps": 3, "training.batch_size": 4, "training.accumulation": 2, "training.learning_rate": 2e-3,
         "training.warmup_steps": 0, "training.epochs": 3, "adapter.dropout": 0.0}
"""Eight pairs, all of them in each step, so that their order does not matter."""


def run_by_itself(text: str, folder) -> str:
    """What the script prints, run in a process that has no studio to import."""
    (folder / "train.py").write_text(text, encoding="utf-8")
    done = subprocess.run([sys.executable, "-P", "train.py"], cwd=folder, capture_output=True, text=True, timeout=300, encoding="utf-8",
                          env={**os.environ, "OMP_NUM_THREADS": "1", "TRL_EXPERIMENTAL_SILENCE": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("changes", [
    {}, pytest.param({"model.template": "chatml", "training.gradient_checkpointing": "full", "training.max_length": 1024}, marks=pytest.mark.slow)],
    ids=["the practice model", "a base that gets ChatML"])
def test_the_script_takes_the_steps_that_the_studio_takes(tmp_path, changes):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(practice.PAIRS.read_text(encoding="utf-8").splitlines(keepends=True)[:8]), encoding="utf-8")
    base = {"model.name": str(tiny_base(tmp_path / "base", chatml=False))} if changes else {}
    settings = jobs_at_work.practice(**{"data.source": str(pairs)} | STEPS | changes | base)
    queue = Queue(tmp_path / "runs", poll_seconds=0.1).open()
    run = queue.add(settings)
    assert ended(run) == "finished", log_of(run)
    queue.close()
    printed = run_by_itself(script.render(settings, str(practice.MODEL)), tmp_path)
    theirs = [float(loss) for loss in re.findall(r"'loss': '?([\d.e+-]+)", printed)]
    ours = [step.metrics["loss"] for step in heard(run, events.Stepped)]
    assert theirs == pytest.approx(ours, rel=2e-4) and len(ours) == 3 and ours[0] > ours[2]
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["r"] == settings.adapter.rank


@pytest.mark.parametrize("preset", all_presets().values(), ids=lambda preset: preset.name)
def test_every_preset_has_a_script_that_is_sound_python_and_short(preset):
    text = script.render(preset.settings)
    compile(text, "train.py", "exec")
    assert len(text.splitlines()) < 100 and "studio." not in text
    for number in (preset.settings.training.learning_rate, preset.settings.adapter.rank, preset.settings.training.max_length):
        assert str(number) in text


def test_what_a_person_wrote_stays_text_in_the_script():
    strange = "/models/it's \"quoted\" {braces} {adapter.rank}"
    text = script.render(Settings.from_form(**{"model.name": strange, "adapter.target_modules": "q_proj, {x}'"}))
    words = [node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)]
    assert words.count(strange) == 2 and "{x}'" in words


def test_what_only_the_studio_does_is_told_by_field():
    with pytest.raises(SettingsError) as refused:
        script.render(Settings.from_form(**{"training.nll_on": "completion", "adapter.start_from": "a-run", "evaluation.keep": "best"}))
    assert set(refused.value.problems) == {"training.nll_on", "adapter.start_from", "evaluation.keep"}


def test_the_script_names_the_versions_that_the_tests_ran_with():
    wanted = {line for name in ("requirements.txt", "requirements-dev.txt")
              for line in (PROJECT / name).read_text(encoding="utf-8").splitlines() if "==" in line}
    for settings, bits in ((Settings(), False), (Settings.from_form(**{"model.quantization": "nf4"}), True),
                           (Settings.from_form(**{"training.optimizer": "adamw_8bit"}), True)):
        (line,) = [line for line in script.render(settings).splitlines() if "pip install" in line]
        packages = set(line.split()[2:])
        assert packages <= wanted and f"trl=={script.TRL}" in packages and any("bitsandbytes" in name for name in packages) == bits
