"""What scripts may call over HTTP or gradio_client: start, status, stop, resume. The same functions the page uses."""

from typing import Any

import gradio as gr

from studio import jobs, runs
from studio.errors import SettingsError, StudioError
from studio.settings import Settings
from studio.summary import Summary
from studio.ui import train_tab
from studio.ui.studio import Studio


def declare(studio: Studio) -> None:
    """Add the public endpoints to the page that is being built."""

    def start(settings: dict[str, Any]) -> str:
        """Queue a run with these settings (sections model, data, adapter, training, evaluation); its name."""
        if not isinstance(settings, dict):
            raise gr.Error("The settings are not a mapping. Hand over what the settings.yaml of a run holds.")
        try:
            return train_tab.begin(studio, studio.permitted(Settings(**settings)))
        except StudioError as error:
            raise gr.Error(_told(error)) from error

    def status(run: str) -> dict[str, Any]:
        """Where a run stands: status, phase, step, steps, metrics, held-out figures, failure."""
        found = _find(studio, run)
        said = studio.said(jobs.of(found))
        summary = Summary(said)
        return {"status": jobs.status(jobs.of(found), said), "phase": summary.phase, "step": summary.step,
                "steps": summary.plan.steps if summary.plan else None, "metrics": summary.metrics,
                "base": summary.held_out("base"), "tuned": summary.held_out("tuned"), "failure": summary.failure}

    def stop(run: str) -> str:
        """Ask a run to end after its present step and to keep its work; the run's status."""
        found = _find(studio, run)
        jobs.stop(jobs.of(found))
        return studio.status(found) or ""

    def resume(run: str) -> str:
        """Let a run that was stopped, failed or was cut off go on from its newest checkpoint; the run's status."""
        found = _find(studio, run)
        try:
            studio.resume(found)
        except StudioError as error:
            raise gr.Error(_told(error)) from error
        return studio.status(found) or ""

    for endpoint in (start, status, stop, resume):
        gr.api(endpoint, api_name=endpoint.__name__)


def _find(studio: Studio, name: str) -> runs.Run:
    found = studio.find(name)
    if found is None:
        raise gr.Error(f"There is no run {str(name)[:80]!r}. Choose one from the list.")
    return found


def _told(error: StudioError) -> str:
    if isinstance(error, SettingsError):
        return " ".join(f"{name}: {text}" for name, text in error.problems.items())
    return str(error)
