"""The latest votes and pairs of those who are compared, each with a button that takes it back."""

from collections.abc import Callable
from dataclasses import dataclass

import gradio as gr

from studio import jobs, judgements
from studio.candidates import Pair
from studio.errors import StudioError
from studio.judgements import Judgement
from studio.runs import Run
from studio.ui import pairing, parts
from studio.ui.studio import Studio
from studio.votes import NEITHER

LONGEST = 90
"""Characters of a question in the list."""
CLICKS = """element.addEventListener("click", ({ target }) => {
  const button = target.closest("button[data-id]");
  if (button) trigger("click", { id: button.dataset.id });
});"""
PUSHED = " A model card that was pushed before still counts it: push again to replace that card."


@dataclass(frozen=True)
class VotesCard:
    """The list as a component, whose click carries the identity of a judgement; and what it shows of those who are compared."""

    shown: gr.HTML
    look: Callable[[str | None, str | None, str | None], str]


def build(studio: Studio) -> VotesCard:
    """The component; whoever builds it says when it looks."""
    shown = gr.HTML(elem_id="judgements", padding=False, js_on_load=CLICKS)

    def look(name: str | None, first: str | None, second: str | None) -> str:
        try:
            run, chosen = _who(studio, name, first, second)
        except StudioError:
            return ""
        pair = pairing.now(studio, run, chosen)
        return listed(judgements.latest(studio.root, run, pair), dict(zip(map(str, pair), pairing.called(run, chosen), strict=True)))

    return VotesCard(shown, look)


def undo(studio: Studio, name: str | None, first: str | None, second: str | None, identity: object) -> tuple[str, str]:
    """Take a judgement back. Returns what to say of it as HTML, and its identity."""
    known = identity if isinstance(identity, str) else ""
    try:
        run, chosen = _who(studio, name, first, second)
        voted, kept = judgements.undo(studio.root, run, pairing.now(studio, run, chosen), known)
    except StudioError as error:
        return parts.note("warn", f"Not undone. {error}"), known
    what = "The vote and its pair are" if voted and kept else "The vote is" if voted else "The pair is"
    pushed = PUSHED if voted and jobs.status(jobs.of(run, "push")) == "finished" else ""
    return parts.note("good", f"Undone. {what} gone, as if you had not judged.{pushed}"), known


def _who(studio: Studio, name: str | None, first: str | None, second: str | None) -> tuple[Run, Pair]:
    """The run in view and those who are chosen. Raises StudioError where there is none."""
    run = studio.find(name)
    if run is None:
        raise StudioError("There is no run in view. Choose one above.")
    return run, pairing.of_form(run, first, second)


def listed(found: list[Judgement], called: dict[str, str]) -> str:
    """The judgements as a list with buttons; nothing where there is none. `called` are the candidates' names, by the candidate as text."""
    if not found:
        return ""
    rows = "".join(_row(one, called | {NEITHER: "no difference"}) for one in found)
    return f'<h2>Your last votes and pairs</h2><ul class="judgements">{rows}</ul>'


def _row(one: Judgement, names: dict[str, str]) -> str:
    told = f"Blind vote: {names.get(one.preferred, one.preferred)}" if one.preferred else ""
    told = ", ".join(filter(None, (told, "a pair was kept" if told and one.made_a_pair else "A pair was kept" if one.made_a_pair else "")))
    asked = " ".join(one.question.split())
    asked = asked if len(asked) <= LONGEST else f"{asked[:LONGEST]} …"
    return (f'<li><span><span class="asked" dir="auto">{parts.text(asked)}</span> <span class="quiet">{parts.text(told)} · '
            f'{parts.text(one.when)}</span></span><button type="button" data-id="{parts.text(one.identity)}" '
            f'aria-label="Undo the judgement on {parts.text(asked)}">Undo</button></li>')
