"""Share: merge the adapter into its base, write that as GGUF; take any of them away as a file, or push it to the Hub."""

from functools import partial
from typing import Any

import gradio as gr

from studio import account, gguf_file, jobs, licences, parcel, practice, usage
from studio.errors import SettingsError, StudioError
from studio.events import Pushed, last
from studio.gguf_file import GGUFRequest
from studio.runs import Run
from studio.settings import PRACTICE
from studio.share import PushRequest
from studio.summary import Summary, in_words
from studio.summary import size as in_bytes
from studio.ui import complaints_card, downloads, mirror, news, parts, token_field
from studio.ui.choices import Radio
from studio.ui.complaints_card import Place
from studio.ui.studio import PRIVATE, QUIET, TEXTS, Studio, refuse
from studio.usage import What

EMPTY = "Choose a run that has ended, above: its adapter can then be downloaded, merged and pushed from here."
NOT_YET = "This run has no adapter yet. When it is finished or stopped, download, merge and push it here."
TAKE = ("## Download\nA ZIP file with the weights, the tokenizer and a card that holds data, settings, results and how to use them. "
        "The adapter is small and needs its base; the merged model stands alone. The GGUF file comes as it is.")
MERGE = ("## Merge\nWrites base and adapter as one 16-bit model, which runs anywhere without the studio. "
         "The merged model is checked against the adapter before it is kept.")
PUSH = "## Push to the Hub\nOne commit with weights, tokenizer and a model card that holds data, settings and results."
WRITE = ("## GGUF\nWrites the merged model as one file for llama.cpp and the programs built on it, with the chat template of the training. "
         "The file is read back and compared with the merged model before it is kept. For Llama, Mistral, Qwen2 and Qwen3 models "
         "with a tokenizer as Llama 3, Qwen, SmolLM, Mistral Nemo or GPT-2 have it.")
PHASES = {"merge": ("loading", "merging", "checking", "saving"), "gguf": ("reading", "writing", "checking"),
          "push": ("checking", "uploading")}
WHATS = {"adapter": "adapter", "merged": "merged model", "gguf": "GGUF file"}
NOT_DONE = {"merge": "Trained, not merged", "gguf": "Not written", "push": "Trained, not pushed"}


def lead(studio: Studio, run: Run | None) -> str:
    """What can be shared, or what to do to share something. Folders are told to the person at this machine alone."""
    if run is None:
        return parts.empty(EMPTY)
    if not run.adapter.is_dir():
        return parts.empty(NOT_YET)
    where = "it can be downloaded, merged and pushed" if studio.who().name else f"it is in {run.adapter}"
    told = parts.note("info", f"Run {run.name} has an adapter: {where}.")
    return told + parts.note("warn", parcel.NEEDS_STUDIO) * usage.needs_studio(run)


def offered(run: Run | None, what: What) -> gr.Button:
    """The button that downloads an adapter or merged model, with its size; hidden where there is none."""
    size = parcel.size(run, what) if run is not None else None
    if size is None:
        return gr.Button(visible=False, link="/")
    return gr.Button(f"Download the {WHATS[what]} ({in_bytes(size)})", visible=True, link=downloads.of_run(run, what))


def how_to_use(studio: Studio, run: Run | None) -> str:
    """Python that loads the merged model, or the adapter while there is none; of a studio's user the downloaded one."""
    what = next((what for what in ("merged", "adapter") if run is not None and parcel.size(run, what) is not None), None)
    if what is None:
        return ""
    if studio.who().name:
        return usage.snippet(run, what, downloads.folder(run, what))
    model = run.settings.model.name
    return usage.snippet(run, what, str(parcel.folder(run, what)), str(practice.MODEL) if model == PRACTICE else model)


def naming(studio: Studio, run: Run | None, repo: str) -> str:
    """What the base's licence asks of the repository's name, green where the name that was typed does so."""
    terms = licences.of(licences.recorded(studio.said(jobs.of(run)))) if run is not None else None
    if terms is None or not (terms.prefix or terms.shown):
        return ""
    shown = f" The card shows “{terms.shown}”." if terms.shown else ""
    return parts.note("good" if repo.strip() and terms.fits(repo.strip()) else "info", f"{terms.of_name()}{shown}".strip())


def state(studio: Studio, run: Run | None, kind: str) -> str:
    """Where a merge, a GGUF file or a push stands, as HTML."""
    if run is None:
        return ""
    job = jobs.of(run, kind)
    said = studio.said(job)
    status, summary = jobs.status(job, said), Summary(said)
    if status is None:
        return ""
    if status in jobs.ALIVE or status == "queued":
        done = summary.progress
        bar = (parts.progress(done.done, done.total, in_words(done)) if done
               else parts.progress(None, None, f"{(summary.phase or 'starting').capitalize()} …"))
        return parts.phases(PHASES[kind], summary.phase, summary.phases_seen) + bar
    return ended(studio, run, kind, status, summary)


def ended(studio: Studio, run: Run, kind: str, status: str, summary: Summary) -> str:
    """How a merge, the writing of a GGUF file or a push ended."""
    if status == "finished" and kind == "merge":
        where = "can be downloaded and pushed" if studio.who().name else f"is in {run.merged}"
        return parts.note("good", " ".join([f"The merged model {where}.", *summary.notes]))
    if status == "finished" and kind == "gguf":
        file = gguf_file.of(run)
        use = f"can be downloaded as {file and file.name}." if studio.who().name else f"is {file}. Start it with: llama-server -m {file}"
        return parts.note("good", f"The GGUF file {use}") + parts.note("info", " ".join(summary.notes))
    if status == "finished":
        pushed = last(summary.said, Pushed)
        told = parts.note("good", f"Pushed to {pushed.repo}: {pushed.url}") if pushed else ""
        return told + "".join(parts.note("warn", words) for words in summary.notes)
    if status == "failed":
        return parts.note("bad", f"{NOT_DONE[kind]}: {summary.failure or ''}")
    if status == "stopped":
        return parts.note("info", "Stopped at your request; nothing half-made was left.")
    return parts.note("bad", "The worker ended without a word: it was killed, or the machine went down. "
                             "What was there before is untouched; start it again.")


def push_problems(values: dict[str, Any]) -> dict[str, str]:
    """What is wrong with what is asked to be pushed, by field name."""
    try:
        PushRequest(**values)
    except SettingsError as error:
        return error.problems
    return {}


def _stop_button(kind: str) -> gr.Button:
    return gr.Button("Stop", variant="stop", size="sm", visible=False, elem_id=f"stop-{kind}")


def build(studio: Studio, in_view: gr.Dropdown, tab: gr.Tab) -> gr.Timer:
    """The components and wiring of `tab`. Returns the timer by which it looks again."""
    top = gr.HTML(lead(studio, None), elem_id="share-head", padding=False)
    with gr.Column(visible=False, elem_id="take-away") as away:
        gr.Markdown(TAKE)
        with gr.Row():
            take = {what: gr.Button(visible=False, link="/", elem_id=f"download-{what}") for what in WHATS}
        with gr.Accordion("Use it in Python", open=False):
            code = gr.Code(language="python", interactive=False, buttons=["copy"], show_label=False, elem_id="snippet")
    with gr.Row():
        with gr.Column():
            gr.Markdown(MERGE)
            merge = gr.Button("Merge into the base", variant="primary", elem_id="merge")
            merged = gr.HTML("", elem_id="merge-state", padding=False)
            stops = {"merge": _stop_button("merge")}
            gr.Markdown(WRITE)
            precision = Radio([("8 bits (Q8_0): half as large, hardly any loss", "q8_0"), ("16 bits, as merged", "16")],
                              value="q8_0", label="Precision", elem_id="gguf-precision")
            write = gr.Button("Write the GGUF file", variant="primary", elem_id="gguf")
            written = gr.HTML("", elem_id="gguf-state", padding=False)
            stops["gguf"] = _stop_button("gguf")
        with gr.Column():
            gr.Markdown(PUSH)
            push_fields = {
                "repo": gr.Textbox(label="Repository", placeholder="name or owner/name", elem_id="push-repo",
                                   info="Where it goes. Without an owner it goes to the token's account."),
                "what": Radio([("the adapter (small; needs the base)", "adapter"), ("the merged model", "merged"),
                               ("the GGUF file", "gguf")], value="adapter", label="What to push", elem_id="push-what"),
                "private": gr.Checkbox(True, label="Private", info="Only you see it. You can open it on the Hub later."),
                "overwrite": gr.Checkbox(False, label="Add to a repository that the studio did not make",
                                         info="Its files of the same names are replaced; the Hub keeps the old ones in its history."),
            }
            named = gr.HTML("", elem_id="push-naming", padding=False)
            token = token_field.build(
                "push-token", "From huggingface.co/settings/tokens. Empty uses the one this machine is logged in with.",
                "Hub token with write access", to_write=True)
            complaints = complaints_card.Complaints(mirror.of(push_fields, "push-now"), push_problems, lambda name: Place("share"),
                                                    "push-complaints", "Push")
            complaints.build()
            push = gr.Button("Push", variant="primary", elem_id="push")
            pushed = gr.HTML("", elem_id="push-state", padding=False)
            stops["push"] = _stop_button("push")
    changed = news.build()
    shown = [top, merged, written, pushed, away, *take.values(), code, *stops.values()]

    def told(run: Run | None) -> tuple[str, ...]:
        return lead(studio, run), *(state(studio, run, kind) for kind in PHASES)

    def at_work(run: Run | None) -> list[str]:
        """For each kind of job whether it can be stopped: at work, already asked to stop, or neither (empty)."""
        found = [jobs.of(run, kind) for kind in PHASES] if run else []
        return [("stopping" if job.stop_file.exists() else "at work") if jobs.status(job, studio.said(job)) in jobs.ALIVE else ""
                for job in found] or [""] * len(PHASES)

    def look(name: str | None) -> str:
        run = studio.find(name)
        return news.digest((*told(run), *(run and parcel.size(run, what) for what in WHATS), *at_work(run)))

    def refresh(name: str | None) -> tuple:
        run = studio.find(name)
        has_something = run is not None and run.adapter.is_dir()
        return (*told(run), gr.Column(visible=has_something), *(offered(run, what) for what in WHATS), how_to_use(studio, run),
                *(gr.Button("Stopping …" if stands == "stopping" else "Stop", visible=bool(stands), interactive=stands == "at work")
                  for stands in at_work(run)))

    def stop(name: str | None, kind: str) -> str:
        run = studio.find(name)
        if run is not None:
            jobs.stop(jobs.of(run, kind))
        return news.again()

    def ready(name: str | None) -> Run:
        run = studio.find(name)
        if run is None or not run.adapter.is_dir():
            raise StudioError(EMPTY if run is None else NOT_YET)
        return run

    def start_merge(name: str | None) -> str:
        try:
            run = ready(name)
            studio.chat.close()  # its model would keep the merge waiting
            jobs.request(jobs.of(run, "merge"), "{}\n", studio.secrets(run))
        except StudioError as error:
            refuse("Not started", error)
        return news.again()

    def start_writing(name: str | None, precision: str) -> str:
        try:
            run = ready(name)
            parcel.folder(run, "merged")
            studio.chat.close()
            jobs.request(jobs.of(run, "gguf"), GGUFRequest(precision=precision).to_yaml())
        except StudioError as error:
            refuse("Not started", error)
        return news.again()

    def start_push(name: str | None, token: str, **values: Any) -> list[str]:
        try:
            run = ready(name)
            jobs.request(jobs.of(run, "push"), PushRequest(**values).to_yaml(), account.entered(token) or studio.secrets(run))
        except StudioError as error:
            refuse("Not started", error)
        return [news.again()]

    merge.click(start_merge, in_view, changed, **PRIVATE)
    write.click(start_writing, [in_view, precision], changed, **PRIVATE)
    complaints.before(push.click, start_push, [in_view, token], [changed])
    for kind, button in stops.items():
        button.click(partial(stop, kind=kind), in_view, changed, **PRIVATE)
    to_name = news.own(push_fields["repo"].change, in_view.change, tab.select)
    to_name.change(lambda name, repo: naming(studio, studio.find(name), repo), [in_view, push_fields["repo"]], named, **QUIET)
    watch = gr.Timer(1.0)
    watch.tick(look, in_view, changed, **QUIET, **TEXTS)
    news.tell(changed, in_view.change, tab.select)
    changed.change(refresh, in_view, shown, **QUIET)
    return watch
