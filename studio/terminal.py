"""A run in a terminal: python -m studio.terminal [SETTINGS]. Same settings, same queue, same worker as the page's.

Without a file of settings, such as Train shows and every run holds, it is the practice run.

Draws a progress bar while it runs and a table at the end. Exit code 0 when the run finished, 1 when it did not,
130 after Ctrl-C, which stops the run and keeps its work.
"""

import argparse
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from studio import events, gpu, jobs, presets
from studio.errors import StudioError
from studio.held_out import compared
from studio.runs import Run
from studio.settings import Settings
from studio.summary import Summary, duration, percent, size, span

POLL_SECONDS = 0.2


def follow(run: Run, console: Console) -> tuple[jobs.Status | None, Summary]:
    """Draw the run's progress until its last word. Returns how it ended, None if its folder is gone, and its events summed up."""
    job, log = jobs.of(run), events.Log(jobs.of(run).log)
    columns = (TextColumn("[bold]{task.description:<12}"), BarColumn(), MofNCompleteColumn(),
               TimeRemainingColumn(), TextColumn("{task.fields[figures]}"))
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("starting", total=None, figures="")
        while True:
            said = log.read()
            summary = Summary(said)
            state = jobs.status(job, said) if run.folder.is_dir() else None
            bar.update(task, description=summary.phase or state or "waiting", completed=summary.step,
                       total=summary.plan.steps if summary.plan else None, figures=_figures(summary))
            if state is None or state in jobs.OVER:
                return state, summary
            time.sleep(POLL_SECONDS)


def _figures(summary: Summary) -> str:
    loss, margin = summary.metrics.get("loss"), summary.metrics.get("rewards/margins")
    return f"loss {loss:.3f}  margin {margin:+.3f}" if loss is not None and margin is not None else ""


def report(summary: Summary, console: Console) -> None:
    """The table at the end: loss, margins, held-out preference base -> tuned, and the fixed prompts with both answers."""
    first, last = summary.steps[0].metrics, summary.steps[-1].metrics
    table = Table(title="The run", show_header=True)
    for column in ("", "before", "after"):
        table.add_column(column)
    for name, words, form in (("loss", "loss (training)", ".3f"), ("rewards/margins", "reward margin (training)", "+.3f")):
        table.add_row(words, *(_figure(metrics.get(name), form) for metrics in (first, last)))
    base, tuned = summary.held_out("base") or {}, summary.held_out("tuned")
    if tuned:
        table.add_row("reward margin (held out)", *(_figure(metrics.get("rewards/margins"), "+.3f") for metrics in (base, tuned)))
        table.add_row(f"prefers the better answer (held out, n={tuned['n']:.0f})",
                      *(percent(metrics.get("rewards/accuracies")) for metrics in (base, tuned)))
    if (found := compared(summary)) is not None:
        table.add_row("95 % interval of it", span(found.before_interval), span(found.after_interval))
    console.print(table)
    if summary.samples:
        answers = Table(title="The same questions, before and after", show_lines=True)
        for column in ("question", "base", "tuned"):
            answers.add_column(column, overflow="fold")
        for sample in summary.samples:
            answers.add_row(*(Text(text) for text in (sample.prompt, sample.base, sample.tuned)))  # its brackets are no markup
        console.print(answers)
    console.print(f"{len(summary.steps)} steps, {duration(summary.seconds_taken)} in the worker, {size(summary.memory)} of memory.")


def _figure(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def main() -> int:
    """Run the settings and report. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Train in the terminal.")
    parser.add_argument("settings", type=Path, nargs="?", help="a settings.yaml; without one it is the practice run")
    parser.add_argument("--runs", type=Path, default=jobs.PROJECT / "runs", help="folder that keeps the runs")
    asked_for = parser.parse_args()
    root, console = asked_for.runs.resolve(), Console()
    try:
        settings = Settings.from_file(asked_for.settings) if asked_for.settings else presets.all_presets()[presets.FIRST].settings
        gpu.refuse_what_cannot_start(settings, root)
    except StudioError as error:
        console.print(Text(f"Not started. {error}", "red"))
        return 1
    asked, queue = time.time(), jobs.Queue(root).open()
    run = queue.add(settings)
    console.print(f"Run {run.name}, in {run.folder}")
    try:
        state, summary = follow(run, console)
    except KeyboardInterrupt:
        jobs.stop(jobs.of(run))
        console.print("Stopping after this step; what was learned is saved.")
        return 130
    finally:
        queue.close()
    if state is None:
        console.print(Text(f"The run's folder is gone: {run.folder} was moved or deleted meanwhile.", "red"))
        return 1
    if state != "finished":
        console.print(Text(f"The run {state}. {summary.failure or 'See ' + str(run.folder / 'worker.log')}", "red"))
        return 1
    report(summary, console)
    console.print(f"First step after {summary.steps[0].at - asked:.1f} s, end after {summary.said[-1].at - asked:.1f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
