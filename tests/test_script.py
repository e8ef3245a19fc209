"""The script of a run: short Python that takes the same steps without the studio."""

import ast
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

from studio import events, practice, script
from studio.engine import export as export_job
from studio.engine.worker import Desk
from studio.errors import SettingsError
from studio.export import ExportRequest
from studio.jobs import PROJECT, Queue
from studio.presets import all_presets
from studio.settings import Settings
from tests import jobs_at_work
from tests.jobs_at_work import ended, heard, log_of
from tests.tiny_run import tiny_base

CHOICES = {"data.rows": 44, "data.held_out": 0.25, "data.leave_out": True, "data.edits": "drop 7", "training.max_steps": None,
           "training.epochs": 2, "training.batch_size": 3, "training.accumulation": 2, "training.learning_rate": 2e-3, "training.max_length": 50,
           "training.warmup_steps": 0.2, "adapter.dropout": 0.0, "evaluation.every": 100}
"""Held-out pairs, several batches to a step and two epochs; of the pairs one is edited away, one is no pair, and some questions
fill the maximum length while other answers are cut at it."""


def run_by_itself(text: str, folder, *arguments: str, **variables: str) -> str:
    """What the script prints, run in a process that has no studio to import."""
    (folder / "train.py").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-P", "train.py", *arguments], cwd=folder, capture_output=True, text=True, timeout=300, encoding="utf-8",
        env=os.environ | {"OMP_NUM_THREADS": "1", "TRL_EXPERIMENTAL_SILENCE": "1", "HF_HUB_DISABLE_XET": "1"} | variables)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def download(settings: Settings, folder) -> None:
    """The file that the page offers for download under "Take the cleaned pairs elsewhere", by its own name."""
    examined = folder / "examined"
    (examined / "export").mkdir(parents=True)
    (examined / "request.yaml").write_text(settings.to_yaml(), encoding="utf-8")
    (examined / "export" / "request.yaml").write_text(ExportRequest(to="jsonl").to_yaml(), encoding="utf-8")
    export_job.export(Desk(examined / "export"))
    (file,) = [path for path in (examined / "export").glob("*.jsonl") if path.name != events.FILE]
    file.rename(folder / file.name)


@pytest.mark.fault("T87")
@pytest.mark.parametrize("changes", [
    {}, pytest.param({"model.template": "chatml", "training.gradient_checkpointing": "full", "training.max_length": 1024}, marks=pytest.mark.slow)],
    ids=["the practice model", "a base that gets ChatML"])
def test_an_exported_script_takes_the_run_s_steps_to_every_printed_digit_merges_and_pushes(tmp_path, hub, changes):
    lines = practice.PAIRS.read_text(encoding="utf-8").splitlines(keepends=True)[:60]
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join([*lines[:20], json.dumps({"prompt": "Empty?", "chosen": "", "rejected": "No."}) + "\n", *lines[20:]]), encoding="utf-8")
    base = {"model.name": str(tiny_base(tmp_path / "base", chatml=False))} if changes else {}
    settings = jobs_at_work.practice(**{"data.source": str(pairs)} | CHOICES | changes | base)
    queue = Queue(tmp_path / "runs", poll_seconds=0.1).open()
    run = queue.add(settings)
    assert ended(run) == "finished", log_of(run)
    queue.close()
    download(settings, tmp_path)
    token = hub.add_user("ada")
    printed = run_by_itself(script.render(settings, str(practice.MODEL)), tmp_path, "--push-to", "ada/tuned", HF_TOKEN=token)
    theirs = re.findall(r"'loss': '?([\d.e+-]+)", printed)
    steps, planned = heard(run, events.Stepped), heard(run, events.Planned)[0]
    assert theirs == [f"{step.metrics['loss']:.4g}" for step in steps] and len(steps) == planned.steps > 8
    assert planned.held_out > 5 and (", 0 too long" in printed) == bool(changes)  # some are left out for their length
    assert f"{planned.pairs} pairs to learn from, {planned.held_out} held out" in printed
    measured = [event.metrics for event in heard(run, events.Evaluated)]
    assert re.findall(r"held out: loss ([\d.]+), accuracy ([\d.]+), margin ([-\d.]+)", printed) == [
        tuple(f"{each[name]:.4f}" for name in ("loss", "rewards/accuracies", "rewards/margins")) for each in measured]
    assert_an_adapter_and_a_whole_model(tmp_path, hub, settings)


def assert_an_adapter_and_a_whole_model(folder, hub, settings: Settings) -> None:
    """Both are read by other hands: safetensors and transformers; the whole model lies on the Hub, private."""
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    weights = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert config["r"] == settings.adapter.rank and {name.split(".")[-2] for name in weights} == {"lora_A", "lora_B"}
    assert all(np.isfinite(weight).all() for weight in weights.values()) and any(weight.any() for weight in weights.values())
    repo = hub.repos["ada/tuned"]
    assert repo.private and {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= set(repo.files())
    merged = AutoModelForCausalLM.from_pretrained(folder / "merged", dtype="auto")
    assert merged.dtype == torch.bfloat16 and repo.files()["model.safetensors"] == (folder / "merged" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("preset", all_presets().values(), ids=lambda preset: preset.name)
def test_every_preset_has_a_script_that_is_sound_python_and_short(preset):
    text = script.render(preset.settings)
    compile(text, "train.py", "exec")
    assert len(text.splitlines()) < 160 and "studio." not in text
    for number in (preset.settings.training.learning_rate, preset.settings.adapter.rank, preset.settings.training.max_length):
        assert str(number) in text


def test_what_a_person_wrote_stays_text_in_the_script():
    strange = "/models/it's \"quoted\" {braces} {adapter.rank}"
    text = script.render(Settings.from_form(**{"model.name": strange, "adapter.target_modules": "q_proj, {x}'"}))
    words = [node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)]
    assert words.count(strange) == 1 and "{x}'" in words


def test_what_only_the_studio_does_is_told_by_field():
    with pytest.raises(SettingsError) as refused:
        script.render(Settings.from_form(**{"training.nll_on": "completion", "adapter.start_from": "a-run", "evaluation.keep": "best",
                                              "data.weight": 2, "data.also": "practice, weight 3"}))
    assert set(refused.value.problems) == {"training.nll_on", "adapter.start_from", "evaluation.keep", "data.weight", "data.also"}


def test_the_script_names_the_versions_that_the_tests_ran_with():
    wanted = {line for name in ("requirements.txt", "requirements-dev.txt")
              for line in (PROJECT / name).read_text(encoding="utf-8").splitlines() if "==" in line}
    for settings, bits in ((Settings(), False), (Settings.from_form(**{"model.quantization": "nf4"}), True),
                           (Settings.from_form(**{"training.optimizer": "adamw_8bit"}), True)):
        (line,) = [line for line in script.render(settings).splitlines() if "pip install" in line]
        packages = set(line.split()[2:])
        assert packages <= wanted and f"trl=={script.TRL}" in packages and any("bitsandbytes" in name for name in packages) == bits
