"""Small pieces of HTML: badges, progress, tiles, notes, pairs and tables. Text in, escaped markup out.

Pure functions that know neither Gradio nor a run; assets/style.css gives the classes their look. Nothing here carries
JavaScript, and no meaning is carried by colour alone.
"""

from collections.abc import Collection, Iterable, Sequence
from html import escape
from pathlib import Path

from studio.preferences.pairs import in_full

LOGO = Path(__file__).resolve().parents[2] / "assets" / "logo.svg"

STATUS_WORDS = {"queued": "waiting", "starting": "starting", "running": "running", "finished": "finished",
                "stopped": "stopped", "failed": "failed", "crashed": "crashed"}
"""What a status is called on the page."""

SIGNS = {"good": "✓", "warn": "!", "bad": "×", "info": "i"}
"""What marks a note besides its colour."""

SPEAKERS = {"user": "Question", "assistant": "Answer", "system": "Instruction"}


def text(value: object) -> str:
    """Anything as text that is safe inside markup and inside a quoted attribute."""
    return escape(str(value))


def header(title: str, claim: str, chip: str = "") -> str:
    """The top of the page: logo, the page's only H1, one line on what it is for, and a chip with the run in view."""
    logo = LOGO.read_text(encoding="utf-8").replace('role="img" aria-label="ORPO Studio"', 'aria-hidden="true"')
    return (f'<header class="masthead"><span class="logo">{logo}</span>'
            f'<div><h1>{text(title)}</h1><p class="claim">{text(claim)}</p></div>{chip}</header>')


def person(name: str) -> str:
    """Who is signed in, with the way out; nothing for the person at this machine, who has not signed in."""
    if not name:
        return ""
    return (f'<form class="person" method="post" action="/logout"><span>Signed in as <strong>{text(name)}</strong></span>'
            '<button type="submit">Sign out</button></form>')


def chip(run: str, status: str | None) -> str:
    """The run in view, small enough for the header."""
    return f'<span class="chip">{text(run)} {badge(status)}</span>'


def badge(status: str | None) -> str:
    """A status as a coloured word; None is a run whose state cannot be told."""
    if status not in STATUS_WORDS:
        return '<span class="badge badge-unknown">unknown</span>'
    return f'<span class="badge badge-{status}">{STATUS_WORDS[status]}</span>'


def mark(kind: str, word: str) -> str:
    """A coloured word that is no status. `kind` is good, warn, bad or info."""
    look = {"good": "finished", "warn": "stopped", "bad": "failed"}.get(kind, "unknown")
    return f'<span class="badge badge-{look}">{text(word)}</span>'


def card(title: str, body: str, level: int = 3) -> str:
    """A framed part of the page. `body` is markup, made by the functions here; `level` is that of the heading."""
    return f'<section class="card"><h{level}>{text(title)}</h{level}>{body}</section>'


def progress(done: float | None, total: float | None, label: str) -> str:
    """A bar with its label above; without a known total it only shows that something moves."""
    if done is None or not total:
        bar = f'<div class="progress-track moving" role="progressbar" aria-label="{text(label)}"><div></div></div>'
    else:
        share = 100 * min(max(done / total, 0), 1)
        bar = (f'<div class="progress-track" role="progressbar" aria-label="{text(label)}" aria-valuemin="0" '
               f'aria-valuemax="100" aria-valuenow="{share:.0f}"><div style="width: {share:.2f}%"></div></div>')
    return f'<div class="progress"><p>{text(label)}</p>{bar}</div>'


def phases(names: Iterable[str], current: str | None, seen: Collection[str] = (), ended_at: str | None = None, how: str = "") -> str:
    """The phases of a job as steps: done (those seen), current, that at which it ended early (`how`: failed or stopped), and to do.

    What was seen and stands after the current one is to do again.
    """
    names = list(names)
    done = [name for name in names[: names.index(current) if current in names else None] if name in seen]
    return f'<ol class="phases" aria-label="Phases">{"".join(_phase(name, current, done, ended_at, how) for name in names)}</ol>'


def _phase(name: str, current: str | None, done: Collection[str], ended_at: str | None, how: str) -> str:
    if name == ended_at and how:
        return f'<li class="{text(how)}">{text(name)}<span class="unseen"> ({text(how)} here)</span></li>'
    if name == current:
        return f'<li class="current" aria-current="step">{text(name)}</li>'
    if name in done:
        return f'<li class="done">{text(name)}<span class="unseen"> (done)</span></li>'
    return f'<li class="todo">{text(name)}</li>'


def tiles(pairs: Iterable[tuple[object, str]]) -> str:
    """Big figures, each a value with its label under it."""
    shown = "".join(f'<div class="tile"><dt>{text(label)}</dt><dd>{text(value)}</dd></div>' for value, label in pairs)
    return f'<dl class="tiles">{shown}</dl>'


def note(kind: str, message: str) -> str:
    """A callout in plain words. `kind` is good, warn, bad or info."""
    return (f'<div class="note note-{text(kind)}"><span class="sign" aria-hidden="true">{SIGNS.get(kind, "i")}</span>'
            f"<p>{text(message)}</p></div>")


def empty(message: str) -> str:
    """What stands where there is nothing yet: a sentence that says the next step."""
    return f'<p class="empty">{text(message)}</p>'


def pair_card(prompt: Sequence[dict[str, str]], better: str, worse: str) -> str:
    """One preference pair as chat bubbles: the prompt, then both answers, which are markup, the better one lifted."""
    asked = "".join(_bubble(SPEAKERS.get(turn["role"], turn["role"]), text(turn["content"]), turn["role"]) for turn in prompt)
    answers = _bubble("Better", better, "chosen") + _bubble("Worse", worse, "rejected")
    return f'<article class="pair">{asked}<div class="answers">{answers}</div></article>'


def _bubble(who: str, said: str, kind: str) -> str:
    return f'<div class="bubble {text(kind)}"><span class="who">{text(who)}</span><p dir="auto">{said}</p></div>'


def conversation(name: str, turns: Sequence[dict[str, str]], at_work: bool = False) -> str:
    """One side of a comparison: who it is, and all that was said, as text and nothing but text, with a button that copies it."""
    said = "".join(_said(turn) for turn in turns)
    return (f'<h2 class="side">{text(name)}</h2><div class="talk" role="log" tabindex="0" aria-label="{text(name)}" '
            f'aria-busy="{str(at_work).lower()}">{said}</div>')


def _said(turn: dict[str, str]) -> str:
    who = SPEAKERS.get(turn["role"], turn["role"])
    exact = text(turn["content"]).replace("\r", "&#13;")  # else the browser makes a newline of it
    return (f'<div class="bubble {text(turn["role"])}"><span class="who">{text(who)}</span><p dir="auto">{exact}</p>'
            f'<button type="button" class="copy" aria-label="Copy this {text(who.lower())}">Copy</button></div>')


def spoken(turns: Sequence[dict[str, str]]) -> str:
    """An answer's text; where it is more than one turn, each later one says who speaks."""
    if len(turns) == 1:
        return in_full(turns[0])
    return "\n\n".join(f"{SPEAKERS.get(turn['role'], turn['role'])}: {in_full(turn)}" for turn in turns)


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table whose first column names the row. It scrolls sideways by itself where the page is narrow."""
    top = "".join(f'<th scope="col">{text(name)}</th>' for name in headers)
    body = "".join(_row(row) for row in rows)
    name = text(", ".join(headers))
    return (f'<div class="table" role="region" aria-label="{name}" tabindex="0"><table>'
            f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>")


def _row(row: Sequence[object]) -> str:
    first, *others = row
    cells = "".join(f"<td>{text(cell)}</td>" for cell in others)
    return f'<tr><th scope="row">{text(first)}</th>{cells}</tr>'


def columns(left: str, right: str) -> str:
    """Two pieces of markup side by side, one above the other where the page is narrow."""
    return f'<div class="columns"><div>{left}</div><div>{right}</div></div>'
