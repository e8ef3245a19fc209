"""A run in a terminal, of any settings: what it prints, how it ends."""

import os
import subprocess
import sys

import pytest
from rich.console import Console

from studio import events, jobs, runs, terminal
from studio.summary import Summary
from tests.jobs_at_work import practice


def ran(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "studio.terminal", *map(str, arguments)], cwd=jobs.PROJECT,
                          env=os.environ | {"COLUMNS": "120"}, capture_output=True, text=True, timeout=120)


def test_any_settings_are_run_also_where_nothing_is_held_out(tmp_path):
    settings = practice(**{"training.max_steps": 2, "data.held_out": 0.0, "evaluation.prompts": "What is [b]2[/b]?"})
    (tmp_path / "mine.yaml").write_text(settings.to_yaml(), encoding="utf-8")
    done = ran(tmp_path / "mine.yaml", "--runs", tmp_path / "runs")
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = runs.listed(tmp_path / "runs")
    assert run.settings == settings and run.adapter.is_dir()
    assert "reward margin (training)" in done.stdout and "held out" not in done.stdout and "What is [b]2[/b]?" in done.stdout


@pytest.mark.parametrize(("content", "told"), [(None, "cannot be read as a file"), ("training: {beta: much}", "training.beta"), ("[", "not YAML"),
                                               ("data: {source: nobody/[red]}", "Not started")])
def test_settings_that_cannot_run_are_refused_in_words_and_make_no_run(tmp_path, content, told):
    if content is not None:
        (tmp_path / "mine.yaml").write_text(content, encoding="utf-8")
    done = ran(tmp_path / "mine.yaml", "--runs", tmp_path / "runs")
    assert done.returncode == 1 and "Not started." in done.stdout and told in " ".join(done.stdout.split())
    assert "Traceback" not in done.stderr and not (tmp_path / "runs").exists()


def test_figures_that_are_no_numbers_are_dashes():
    console = Console(record=True, width=120)
    terminal.report(Summary([events.Stepped(1, {"loss": None, "rewards/margins": 0.5}),
                             events.Evaluated(1, "tuned", {"rewards/accuracies": None, "rewards/margins": None, "n": 3})]), console)
    printed = console.export_text()
    assert "–" in printed and "n=3" in printed and "+0.500" in printed
