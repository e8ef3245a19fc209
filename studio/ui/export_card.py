"""The cleaned pairs taken elsewhere: a file to download, or a dataset on the Hub."""

from pathlib import Path
from typing import Any

import gradio as gr

from studio import account, export, jobs
from studio.errors import SettingsError, StudioError
from studio.events import Pushed, last
from studio.export import ExportRequest
from studio.jobs import Job
from studio.summary import Summary, in_words
from studio.ui import complaints_card, downloads, mirror, parts
from studio.ui.complaints_card import Place
from studio.ui.doctor_card import Doctor
from studio.ui.studio import PRIVATE, Studio, looks_while, refuse

WORDS = ("The pairs as the edits leave them, as explicit conversations; the file they came from stays as it is. "
         "The Hub token entered above is used for the Hub.")


def state(folder: str) -> tuple[str, bool, Path | None]:
    """Where the export of the pairs in an examination's folder stands: HTML, whether it is at work, and the finished file."""
    if not folder:
        return "", False, None
    job = export.job_of(Job("examine", Path(folder)))
    said = jobs.events.read(job.log)
    status, summary = jobs.status(job, said), Summary(said)
    if status is None:
        return "", False, None
    if status in (*jobs.ALIVE, "queued"):
        far = f": {in_words(summary.progress)}" if summary.progress else ""
        return parts.progress(None, None, f"{(summary.phase or 'starting').capitalize()}{far}"), True, None
    return ended(status, summary), False, export.result(job)


def ended(status: str, summary: Summary) -> str:
    """How an export ended."""
    pushed = last(summary.said, Pushed)
    if status == "finished":
        told = " ".join(summary.notes)
        return parts.note("good", f"Pushed to {pushed.repo}: {pushed.url}. {told}" if pushed else f"Ready to download: {told}")
    if status == "stopped":
        return parts.note("info", "Stopped at your request; nothing half-made was left.")
    return parts.note("bad", summary.failure or "The worker ended without a word: it was killed, or the machine went down. Start it again.")


def push_problems(values: dict[str, Any]) -> dict[str, str]:
    """What is wrong with what is asked of the Hub, by field name."""
    try:
        ExportRequest(to="hub", **values)
    except SettingsError as error:
        return error.problems
    return {}


def build(studio: Studio, doctor: Doctor, token: gr.Textbox) -> None:
    """The components and their wiring."""
    with gr.Accordion("Take the cleaned pairs elsewhere", open=False, visible=False, elem_id="export") as card:
        gr.Markdown(WORDS)
        with gr.Row():
            jsonl = gr.Button("As a JSONL file", size="sm", elem_id="export-jsonl")
            parquet = gr.Button("As a Parquet file", size="sm", elem_id="export-parquet")
            download = gr.Button("Download", variant="primary", size="sm", visible=False, elem_id="download-pairs", link="/")
        with gr.Row(elem_classes="fields"):
            repo = gr.Textbox(label="Dataset repository", placeholder="name or owner/name", elem_id="export-repo",
                              info="Where it goes on the Hub. Without an owner it goes to the token's account.")
            private = gr.Checkbox(True, label="Private", info="Only you see it. You can open it on the Hub later.")
            overwrite = gr.Checkbox(False, label="Replace files that the studio did not make",
                                    info="Of a dataset that is there already; the Hub keeps its history.")
        fields = {"repo": repo, "private": private, "overwrite": overwrite}
        complaints = complaints_card.Complaints(mirror.of(fields, "export-now"), push_problems,
                                                lambda name: Place("data", "export"), "export-complaints", "Push to the Hub")
        complaints.build()
        push = gr.Button("Push to the Hub", size="sm", elem_id="export-hub")
        told = gr.HTML(elem_id="export-state", padding=False)
        stop = gr.Button("Stop", size="sm", visible=False, elem_id="stop-export")
    watch, folder = gr.Timer(1.0), doctor.folder
    shown = [card, told, watch, stop, download]

    def show(folder: str, by_timer: bool = False) -> list[Any]:
        html, at_work, path = state(folder)
        return [gr.Accordion(visible=bool(folder)), html, looks_while(at_work, by_timer), gr.Button(visible=at_work),
                gr.Button(link=downloads.of_pairs(Path(folder).name) if path else "/", visible=bool(path))]

    def begin(folder: str, token: str, **choices: Any) -> list[Any]:
        if not folder:
            return [refuse("Not exported", "These pairs have not been examined. Press “Examine the pairs” first.")] * len(shown)
        try:
            export.begin(Job("examine", Path(folder)), ExportRequest(**choices), account.entered(token))
        except StudioError as error:
            return [refuse("Not exported", error)] * len(shown)
        return show(folder)

    def end(folder: str) -> None:
        if folder:
            jobs.stop(export.job_of(Job("examine", Path(folder))))

    for to, button in (("jsonl", jsonl), ("parquet", parquet)):
        button.click(lambda folder, token, to=to: begin(folder, token, to=to), [folder, token], shown, **PRIVATE)
    complaints.before(push.click, lambda folder, token, **choices: begin(folder, token, to="hub", **choices), [folder, token], shown)
    stop.click(end, folder, **PRIVATE)
    doctor.follow(show, folder, shown)
    watch.tick(lambda folder: show(folder, by_timer=True), folder, shown, concurrency_limit=None, **PRIVATE)
