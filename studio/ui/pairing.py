"""Who is compared, in words, and how they are asked: what Compare makes of the choices of its form."""

from typing import Any

from studio import candidates, jobs, seal, votes
from studio.candidates import BASE, Candidate
from studio.chat import Sampling
from studio.errors import SettingsError, StudioError
from studio.events import Planned, last
from studio.runs import Run
from studio.settings import PRACTICE
from studio.ui import form, parts, talk
from studio.ui.studio import Studio

EMPTY = "Choose a run that has ended, above: base and tuned then answer your questions side by side."
NOT_YET = "This run has no adapter yet. When it is finished or stopped, talk to it here."
GONE = "{0} is no longer there. Choose both who are compared anew: the lists hold who can answer now."
SAME = "Both who are compared are the same. Choose two that differ."

SAMPLING = {"temperature": (0.7, "Temperature", "0 takes the likeliest word each time; higher is more varied."),
            "top_p": (0.9, "Top p", "Draws only from the likeliest words that make up this share."),
            "max_new_tokens": (200, "Longest answer", "In tokens, about three quarters of a word each.")}


def of_form(run: Run, first: str | None, second: str | None) -> candidates.Pair:
    """Who is chosen to be compared; base and run where nothing is. Raises StudioError for what nobody offered."""
    pair = (Candidate.parse(first or str(BASE)), Candidate.parse(second or str(Candidate(run.name))))
    if pair[0] == pair[1]:
        raise StudioError(SAME)
    return pair


def to_ask(studio: Studio, name: str | None, first: str | None, second: str | None,
           chosen: dict[str, Any]) -> tuple[Run, candidates.Pair, Sampling]:
    """Of which run's base, whom, and how. Raises StudioError where that cannot be asked."""
    run = studio.find(name)
    if run is None or not run.adapter.is_dir():
        raise StudioError(EMPTY if run is None else NOT_YET)
    pair = of_form(run, first, second)
    if gone := next((candidate for candidate in pair if not candidates.is_there(candidate, run)), None):
        raise StudioError(GONE.format(gone))
    try:
        return run, pair, Sampling(**chosen)
    except SettingsError as error:
        raise StudioError(form.in_words(error.problems, {name: label for name, (_, label, _) in SAMPLING.items()})) from error


def who_is_there(studio: Studio, run: Run | None) -> list[tuple[str, str]]:
    """Who can be compared beside a run, for the lists: the label, and the candidate as text."""
    if run is None:
        return []
    beside = [other for other in studio.runs() if other.folder.parent == run.folder.parent]
    return [(candidates.in_list(candidate, run), str(candidate)) for candidate in candidates.offered(run, beside)]


def out_of_date(run: Run | None, first: str | None, second: str | None) -> bool:
    """Whether the lists must be offered anew: somebody who is chosen is not there, or there is somebody and nobody is chosen."""
    if run is None or not run.adapter.is_dir():
        return False
    try:
        return not (first and second and all(candidates.is_there(Candidate.parse(key), run) for key in (first, second)))
    except StudioError:
        return True


def usual_system(studio: Studio, run: Run | None) -> str:
    """The system prompt that all pairs of a run have; empty where there is none, or no run to ask."""
    if run is None or not run.adapter.is_dir():
        return ""
    planned = last(studio.said(jobs.of(run)), Planned)
    return talk.usual_system(run, planned.system if planned else None)


def called(run: Run, pair: candidates.Pair) -> tuple[str, str]:
    """What the two are called beside the run in view."""
    return candidates.name(pair[0], run), candidates.name(pair[1], run)


def lead(studio: Studio, name: str | None, first: str | None = None, second: str | None = None, blind: bool = False) -> str:
    """What is compared, or what to do to compare something."""
    run = studio.find(name)
    if run is None:
        return parts.empty(EMPTY)
    if not run.adapter.is_dir():
        return parts.empty(NOT_YET)
    try:
        one, other = (_in_full(candidate, run) for candidate in of_form(run, first, second))
    except StudioError as error:
        return parts.note("warn", str(error))
    written = seal.trained_with(run, studio.said(jobs.of(run)))
    template = f" Both read you through the template of the training (seal {written})." if written else ""
    told = (f"One of them is {one}, the other {other}. Which is which is drawn for each talk, and told when you have voted."
            if blind else f"Left: {one}. Right: {other}.")
    return parts.note("info", told + template)


def _in_full(candidate: Candidate, run: Run) -> str:
    base = "the practice model" if run.settings.model.name == PRACTICE else run.settings.model.name
    if not candidate.run:
        return f"{base} as it was"
    return f"{base} after {f'step {candidate.step:,} of ' if candidate.step is not None else ''}run {candidate.run}"


def now(studio: Studio, run: Run, pair: candidates.Pair) -> candidates.Pair:
    """The pair with the steps that its adapters have now."""
    first, second = (candidate.at(studio.said(jobs.of(Run(run.folder.parent / candidate.run)))) if candidate.run else candidate
                     for candidate in pair)
    return first, second


def tally(studio: Studio, run: Run | None, first: str | None = None, second: str | None = None) -> str:
    """The blind votes on a pair so far; nothing while there are none."""
    try:
        pair = of_form(run, first, second) if run is not None else None
    except StudioError:
        return ""
    found = votes.tally(run, now(studio, run, pair)) if pair else votes.Tally()
    return parts.note("info", found.in_words(called(run, pair))) if found.votes else ""
