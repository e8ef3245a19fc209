"""Blind votes: who sits where is hidden until the vote, votes are counted with their interval, and only those on the present adapter."""

import json
from collections import Counter

import pytest

from studio import card, events, jobs, runs, votes
from studio.chat import Answers
from studio.jobs import Queue
from studio.summary import Summary
from studio.ui import compare_tab
from studio.ui.seats import Seats
from studio.ui.studio import Studio
from studio.votes import Tally
from tests.jobs_at_work import practice, said


@pytest.fixture
def run(tmp_path):
    """A run that was stopped after twenty steps."""
    run = runs.create(tmp_path, practice())
    run.adapter.mkdir()
    events.append(jobs.of(run).log, events.Saved(20, "adapter"))
    return run


def counted(run) -> Tally:
    return votes.tally(run, said(run))


# --- seats ----------------------------------------------------------------------------------------------------------------


def test_in_an_open_talk_the_base_sits_on_the_left_and_is_named():
    assert [Seats().label(side) for side in ("left", "right")] == ["Base", "Tuned"]
    assert Seats().button("right") == "Tuned answered better" and not Seats().hidden and Seats().sorted(1, 2) == (1, 2)


@pytest.mark.parametrize("exchanged", [True, False])
def test_in_a_blind_talk_nothing_names_them_before_the_vote(exchanged):
    seats = Seats(blind=True, exchanged=exchanged)
    for side in ("left", "right"):
        assert not {"base", "tuned"} & set(f"{seats.label(side)} {seats.button(side)}".lower().replace(":", "").split())
    assert seats.sorted(*seats.sorted("b", "t")) == ("b", "t")
    left = "tuned" if exchanged else "base"
    assert seats.who("left") == left and seats.revealed().label("left") == f"A: {left}" and not seats.revealed().hidden


def test_seats_are_drawn_by_lot():
    left = Counter(Seats.drawn().who("left") for _ in range(400))
    assert 140 < left["base"] < 260


def test_of_two_that_answer_in_turn_neither_speaks_before_both_are_done_while_it_is_hidden():
    """The base comes first: whoever saw it would know which it is."""
    before, first = [[{"role": "user", "content": "Why?"}]] * 2, Answers(base="Because.")

    def words(answers, seats, together):
        return [talk[-1]["content"] for talk in compare_tab.shown(answers, before, seats, together)]

    hidden = Seats(blind=True, exchanged=True)
    assert words(first, hidden, together=False) == ["…", "…"]
    assert words(first, hidden, together=True) == ["…", "Because."]
    assert words(first, hidden.revealed(), together=False) == ["…", "Because."]
    assert words(Answers("Because.", "So.", done=True), hidden, together=False) == ["So.", "Because."]


# --- counting -------------------------------------------------------------------------------------------------------------


def test_votes_are_counted_and_told_with_their_interval(run, tmp_path):
    studio = Studio(tmp_path, Queue(tmp_path))
    assert counted(run) == Tally() and compare_tab.tally(studio, run) == compare_tab.tally(studio, None) == ""
    for preferred in ["tuned"] * 8 + ["base"] * 2 + ["neither"]:
        votes.add(run, said(run), preferred, "Why?")
    assert counted(run) == Tally(base=2, tuned=8, neither=1)
    told = counted(run).in_words()
    assert told.startswith("11 blind votes: 8 for the tuned answer, 2 for the base's, 1 for neither.")
    assert "Tuned won 80.0 % of those decided (95 % interval 49.0 to 94.3 %), which chance alone could do" in told
    assert "11 blind votes" in compare_tab.tally(studio, run)


@pytest.mark.parametrize(("tally", "told"), [
    (Tally(tuned=1), "1 blind vote: 1 for the tuned answer, 0 for the base's."),
    (Tally(neither=3), "3 blind votes: 0 for the tuned answer, 0 for the base's, 3 for neither."),
    (Tally(base=1, tuned=9), "more than chance would do."),
    (Tally(base=9, tuned=1), "Tuned won 10.0 % of those decided (95 % interval 1.8 to 40.4 %), more than chance would do.")])
def test_few_votes_and_clear_ones_are_told_as_such(tally, told):
    assert told in tally.in_words()


def test_votes_on_an_earlier_adapter_no_longer_count(run):
    votes.add(run, said(run), "tuned", "Why?")
    events.append(jobs.of(run).log, events.Resumed(20))
    assert counted(run).votes == 1
    events.append(jobs.of(run).log, events.Saved(40, "adapter"))
    assert counted(run).votes == 0
    votes.add(run, said(run), "base", "Why?")
    assert counted(run) == Tally(base=1)


def test_a_spoiled_line_costs_one_vote_only(run):
    votes.add(run, said(run), "tuned", "Wie geht's?\nGut\u2028!")
    with open(run.folder / votes.FILE, "ab") as lines:
        lines.write(b'{"preferred": "tu\n\xff\xfe\n[1]\n{"preferred": ["x"], "step": 20}\n{"preferred": "everybody", "step": 20}\n')
    votes.add(run, said(run), "base", "Why?")
    assert counted(run) == Tally(base=1, tuned=1)
    assert json.loads((run.folder / votes.FILE).read_bytes().splitlines()[0])["question"] == "Wie geht's?\nGut\u2028!"


def test_the_card_tells_the_votes_and_nothing_of_the_questions(run):
    assert "Blind votes" not in card.render(run, "adapter", "ada/tuned")
    votes.add(run, said(run), "tuned", "a private question")
    readme = card.render(run, "adapter", "ada/tuned")
    assert "## Blind votes" in readme and "1 blind vote: 1 for the tuned answer" in readme
    assert "a private question" not in readme and Summary(said(run)).held_out("tuned") is None
