"""Runs: one run as it happens, from queued to its last word."""

import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import gradio as gr

from studio import about, jobs, line, phases, pulse
from studio.errors import StudioError, redact
from studio.events import Sampled
from studio.jobs import Status
from studio.runs import Run
from studio.summary import Summary, duration, in_words, percent, size
from studio.ui import explain, news, overlay_card, parts
from studio.ui.charts import live_charts
from studio.ui.choices import once_closed
from studio.ui.run_view import View, view
from studio.ui.studio import PRIVATE, QUIET, TEXTS, Studio, refuse

EMPTY = "No run yet. Start the practice run above, or choose your pairs under Data and press Start under Train."
WAITING = "One run computes at a time; this one starts by itself."
CRASHED = "The worker ended without a word: it was killed, or the machine went down."
GO_ON = "The log below may tell more. Resume it from its last checkpoint, or start it again with its settings."
ENDS = {
    -signal.SIGKILL: "The worker was killed (SIGKILL): most likely the machine ran out of memory, or somebody ended it.",
    -signal.SIGSEGV: "The worker crashed inside a library (SIGSEGV): a driver or a package that does not fit this machine.",
    -signal.SIGBUS: "The worker crashed inside a library (SIGBUS): often a full disk under a mapped file.",
    -signal.SIGABRT: "The worker was ended by a library (SIGABRT), often the driver of the card.",
}
"""What a worker's exit code says, for those that say something."""
HANGS = ("No sign of life for {seconds:.0f} s: the worker hangs, or was paused. It goes on by itself if it can; "
         "otherwise stop it at once and resume it from its last checkpoint.")
PASSED_OVER = "{lines} of this run's event log cannot be read and was passed over. All others are shown."
UNSHOWN = "Run {name} cannot be shown ({why}). Its folder is untouched; move it to the trash, or look into it by hand."
TAIL_BYTES = 6000


@dataclass(frozen=True)
class RunsTab:
    """The buttons that ask for another run with the settings, or from the adapter, in view; and the timer by which the tab looks again."""

    again: gr.Button
    further: gr.Button
    watch: gr.Timer


def head(run: Run, status: Status, summary: Summary, place: str = "", silence: float = 0) -> str:
    """Title, name, status, phases, progress and the figures of a run; its place in line, and for how long its worker was silent."""
    called = about.of(run).title
    name = f'<span class="quiet">{parts.text(run.name)}</span>' if called else ""
    title = f'<div class="run-title"><h2 dir="auto">{parts.text(called or run.name)}</h2>{name}{parts.badge(status)}</div>'
    if status == "queued":
        return title + parts.note("info", f"{place} {WAITING}".strip())
    moving = status in jobs.ALIVE
    stands = phases.of_run(summary.said, status)
    shown = parts.phases(phases.NAMES, stands.current, stands.done, stands.ended_at, stands.how)
    hangs = parts.note("bad", HANGS.format(seconds=silence)) if moving and silence >= pulse.SILENCE else ""
    ended = "" if moving else outcome(status, summary, run, jobs.exit_code(jobs.of(run)))
    return title + shown + hangs + (progress(summary) if moving else "") + ended + figures(summary, moving)


def in_line(place: int, before: Run | None) -> str:
    """A waiting run's place, in words."""
    return f"Waiting, {line.in_words(place)}{f', after {before.name}' if before else ''}."


def crash(code: int | None, step: int) -> str:
    """How a worker ended that said nothing: what its exit code tells, and the last step it took."""
    how = ENDS.get(code, CRASHED if code is None else f"The worker ended without a word (exit code {code}).")
    return f"{how} Its last step was {step}. {GO_ON}"


def progress(summary: Summary) -> str:
    """The bar of the present phase: steps while training, else what the phase says of itself."""
    if summary.phase == "training" and summary.plan:
        left = f", about {summary.left_in_words} left" if summary.seconds_left is not None else ""
        return parts.progress(summary.step, summary.plan.steps, f"Step {summary.step:,} of {summary.plan.steps:,}{left}")
    if summary.progress:
        return parts.progress(summary.progress.done, summary.progress.total, in_words(summary.progress))
    return parts.progress(None, None, f"{(summary.phase or 'starting').capitalize()} …")


def outcome(status: Status, summary: Summary, run: Run, code: int | None) -> str:
    """How the run ended."""
    if status == "failed":
        return parts.note("bad", summary.failure or "")
    if status == "crashed":
        return parts.note("bad", crash(code, summary.step))
    if status == "stopped":
        kept = ("What it had learned is saved: compare it under Compare." if run.adapter.is_dir() else
                "Resume goes on from its last checkpoint." if run.last_checkpoint else "Nothing had been saved." if summary.step else
                "It had not begun.")
        return parts.note("info", f"Stopped at your request after step {summary.step}. {kept}")
    found = explain.verdict(summary) if status == "finished" else None
    return parts.note(found.kind, found.text) if found else ""


def figures(summary: Summary, moving: bool) -> str:
    """The tiles: progress, time, memory, and the preference on held-out pairs."""
    base, tuned = summary.held_out("base"), summary.held_out("tuned")
    plan, speed = summary.plan, summary.seconds_a_step
    tiles = [
        (f"{summary.step:,} / {plan.steps:,}" if plan else "–", "steps"),
        (summary.left_in_words, "left") if moving else (duration(summary.seconds_taken), "in all"),
        (f"{1 / speed:.1f} /s" if speed and speed < 1 else duration(speed), "steps" if speed and speed < 1 else "a step"),
        (size(summary.memory), "memory, GPU" if summary.device not in (None, "cpu") else "memory"),
        (number(summary.metrics.get("rewards/margins")), "reward margin"),
        (before_and_after(*(found and found["rewards/accuracies"] for found in (base, tuned))), "prefers the better answer, held out"),
    ]
    return parts.tiles(tiles)


def before_and_after(before: float | None, after: float | None) -> str:
    """Two shares in the room of a tile: "93.0 → 98.5 %"."""
    return f"{percent(before)} → {percent(after)}" if after is None else f"{percent(before).removesuffix(' %')} → {percent(after)}"


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def words(summary: Summary, damaged: int = 0) -> str:
    """The curves in plain words, what the worker noted, and how many lines of its log cannot be read."""
    noted = "".join(f"<li>{parts.text(text)}</li>" for text in summary.notes)
    repairs = "".join(parts.note("warn", f"Memory ran out after step {one.step}, and the run went on by itself: {one.text}.")
                      for one in summary.repairs[-1:])
    remarks = "".join(parts.note(remark.kind, remark.text) for remark in explain.remarks(summary))
    lines = "One line" if damaged == 1 else f"{damaged:,} lines"
    remarks += parts.note("info", PASSED_OVER.format(lines=lines)) if damaged else ""
    return repairs + remarks + (f'<details class="noted"><summary>About the data</summary><ul>{noted}</ul></details>' if noted else "")


def samples(summary: Summary) -> str:
    """The fixed prompts with both answers, and how tuned's changed as training went."""
    if not summary.samples:
        return ""
    rows = [(sample.prompt, sample.base, sample.tuned) for sample in summary.samples]
    latest = summary.sampled[-1].step
    table = f"<h3>The same questions, before and after step {latest}</h3>" + parts.table(("Question", "Base", "Tuned"), rows)
    told = "".join(_changed(sample, [other for other in summary.sampled if other.prompt == sample.prompt]) for sample in summary.samples)
    return table + (f'<details class="noted"><summary>How the answers changed</summary>{told}</details>' if told else "")


def _changed(latest: Sampled, taken: list[Sampled]) -> str:
    """One prompt's answers step by step; nothing for one that was asked once."""
    told = {sample.step: sample.tuned for sample in taken}  # that of a step whose weights were kept is asked twice
    rows = [("base", latest.base), *((f"step {step}", tuned) for step, tuned in sorted(told.items()))]
    return parts.table(("Answer of", latest.prompt), rows) if len(told) > 1 else ""


def tail(log: Path) -> str:
    """The end of the worker's log, tokens blotted out."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            return redact(file.read().decode(errors="replace"))
    except FileNotFoundError:
        return ""


@dataclass(frozen=True)
class Rendered:
    """What is shown of it as HTML."""

    top: str
    told: str
    differing: str
    answered: str


def rendered(studio: Studio, seen: View) -> Rendered:
    """The same in HTML. What cannot be shown of a run says so, and is never the end of the page."""
    run, summary = seen.run, seen.reading.summary
    try:
        differing = overlay_card.table([run, *seen.laid_over], lambda one: studio.said(jobs.of(one)))
        return Rendered(head(run, seen.status, summary, in_line(seen.place, seen.before), seen.silence)
                        + (parts.note("bad", seen.trouble) if seen.trouble else "") + another_version(run),
                        words(summary, seen.reading.damaged), differing, samples(summary))
    except (ValueError, TypeError, KeyError, IndexError, ArithmeticError, OSError, StudioError) as error:
        return Rendered(parts.note("bad", UNSHOWN.format(name=run.name, why=redact(f"{type(error).__name__}: {error}")[:300])), "", "", "")


def another_version(run: Run) -> str:
    """What of a run's settings this version has not, or would not take."""
    try:
        told = run.stored.in_words()
    except StudioError as error:
        return parts.note("warn", f"The settings of this run cannot be read. {error}")
    return parts.note("info", told) if told else ""


@dataclass(frozen=True)
class Offer:
    """What can be done with a run as it stands: a button each. `stop` is what the button says, `resume` after which step."""

    stop: str
    end: bool
    sooner: bool
    resume: int | None
    again: bool
    further: bool


def offer_of(seen: View) -> Offer:
    """What can be done with the run in view. One that ended before its end is resumed, if it left a checkpoint."""
    status, over = seen.status, seen.status in jobs.OVER
    stop = "Cancel" if status == "queued" else seen.stop_word if seen.stopping else "Stop and keep the work"
    return Offer(stop if status in (*jobs.ALIVE, "queued") else "", seen.stopping or seen.silence > 0, seen.before is not None,
                 seen.run.last_checkpoint if status in ("stopped", "failed", "crashed") else None, over, over and seen.run.adapter.is_dir())


def build(studio: Studio, in_view: gr.Dropdown, tab: gr.Tab) -> RunsTab:
    """The components and wiring of `tab`; `in_view` names the run that all tabs share."""
    top = gr.HTML(parts.empty(EMPTY), elem_id="run-head", padding=False)
    with gr.Row():
        halt = gr.Button("Stop and keep the work", variant="stop", visible=False, elem_id="stop")
        end = gr.Button("Stop at once, without the last steps", variant="stop", visible=False, elem_id="end")
        sooner = gr.Button("Start sooner", visible=False, elem_id="sooner")
        resume = gr.Button("Resume", variant="primary", visible=False, elem_id="resume")
        again = gr.Button("New run with these settings", visible=False, elem_id="again")
        further = gr.Button("New run from this adapter", visible=False, elem_id="further")
    told = gr.HTML("", elem_id="run-words", padding=False)

    def fresh_points(run: str, have: int) -> dict:
        found = studio.find(run)
        return studio.reading(jobs.of(found)).points(have) if found else {"rows": [], "total": 0}

    overlaid = overlay_card.build()
    charts = live_charts(fresh_points)
    differing = gr.HTML("", elem_id="differences", padding=False)
    answered = gr.HTML("", elem_id="run-samples", padding=False)
    with gr.Accordion("Worker log", open=False) as log_fold:
        log = gr.Textbox(label="The end of worker.log", lines=12, max_lines=20, interactive=False)
    # Two texts: an update makes Gradio build the component anew, and the buttons change seldom, the rest with each step.
    changed, offered, reads_log = news.build(), news.build(), gr.State(False)
    buttons, outputs = [halt, end, sooner, resume, again, further], [top, told, charts, differing, answered, log]
    beats = pulse.Pulse()

    def look(name: str | None, others: list[str]) -> View | None:
        run = studio.find(name)
        return view(studio, run, beats, overlay_card.chosen(studio, name, others)) if run is not None else None

    def tick(name: str | None, others: list[str]) -> tuple[str, str]:
        seen = look(name, others)
        return news.digest(seen.key if seen else ()), news.digest(offer_of(seen) if seen else ())

    def refresh(name: str | None, reads_log: bool, others: list[str]) -> list:
        seen = look(name, others)
        if seen is None:
            return [parts.empty(EMPTY), "", {"run": "", "count": 0}, "", "", ""]
        html = studio.views.of(seen.key, lambda: rendered(studio, seen))
        return [html.top, html.told, {"run": name, "count": seen.reading.count, "others": dict(seen.counts)}, html.differing, html.answered,
                read_log(name) if reads_log else gr.skip()]

    def offer_buttons(name: str | None) -> list[gr.Button]:
        seen = look(name, [])
        if seen is None:
            return [gr.Button(visible=False)] * len(buttons)
        can = offer_of(seen)
        return [gr.Button(can.stop, visible=can.stop != "", interactive=not seen.stopping), gr.Button(visible=can.end),
                gr.Button(visible=can.sooner), gr.Button(f"Resume after step {can.resume}", visible=can.resume is not None),
                gr.Button(visible=can.again), gr.Button(visible=can.further)]

    def acts(act: Callable[[Run], object], refused: str, name: str | None) -> list[str]:
        run = studio.find(name)
        try:
            if run is not None:
                act(run)
        except StudioError as error:
            refuse(refused, error)
        return [news.again(), news.again()]

    def read_log(name: str | None) -> str:
        run = studio.find(name)
        return tail(run.folder / "worker.log") if run else ""

    watch = gr.Timer(1.0)
    looking = [in_view, reads_log, overlaid]
    news.own(tab.select, in_view.change).change(partial(overlay_card.offer, studio), [in_view, overlaid], overlaid,
                                                **once_closed(overlaid), **QUIET)
    watch.tick(tick, [in_view, overlaid], [changed, offered], **QUIET, **TEXTS)
    news.tell(offered, in_view.change, tab.select)
    offered.change(offer_buttons, in_view, buttons, **QUIET)
    news.tell(changed, in_view.change, tab.select, overlaid.change)
    changed.change(refresh, looking, outputs, **QUIET, **TEXTS)
    for button, act, refused in ((halt, lambda run: jobs.stop(jobs.of(run)), "Not stopped"),
                                 (end, lambda run: jobs.end(jobs.of(run)), "Not ended"),
                                 (sooner, lambda run: studio.queue.forward(run, studio.may_pass), "Not moved"),
                                 (resume, studio.resume, "Not resumed")):
        button.click(partial(acts, act, refused), in_view, [changed, offered], **PRIVATE)
    log_fold.expand(read_log, in_view, log, **QUIET)
    log_fold.expand(lambda: True, None, reads_log, **QUIET)
    log_fold.collapse(lambda: False, None, reads_log, **QUIET)
    return RunsTab(again, further, watch)
