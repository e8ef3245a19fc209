"""Blind votes: who sits where is hidden until the vote, votes are counted with their interval, and only those on the present adapter."""

import json
from collections import Counter

import pytest

from studio import card, events, jobs, runs, votes
from studio.candidates import BASE, Candidate
from studio.chat import Answers
from studio.jobs import Queue
from studio.ui import pairing
from studio.ui.seats import Seats
from studio.ui.studio import Studio
from studio.ui.talk import Talk
from studio.votes import Tally
from tests.jobs_at_work import practice, said


@pytest.fixture
def run(tmp_path):
    return stopped_after(20, tmp_path)


def stopped_after(step: int, root) -> runs.Run:
    """A run that was stopped after so many steps."""
    run = runs.create(root, practice())
    run.adapter.mkdir()
    events.append(jobs.of(run).log, events.Saved(step, "adapter"))
    return run


def pair_of(run):
    """Base and run, as the run is now."""
    return BASE, Candidate(run.name).at(said(run))


def counted(run) -> Tally:
    return votes.tally(run, pair_of(run))


def vote(run, preferred, question="Why?") -> None:
    votes.add(run, pair_of(run), {"base": 0, "tuned": 1}.get(preferred, "neither"), question)


# --- seats ----------------------------------------------------------------------------------------------------------------


def test_in_an_open_talk_the_first_sits_on_the_left_and_is_named():
    assert [Seats().label(side) for side in ("left", "right")] == ["Base", "Tuned"]
    assert Seats().button("right") == "Tuned answered better" and not Seats().hidden and Seats().sorted(1, 2) == (1, 2)
    assert Seats(("Step 20", "Friendly")).button("left") == "Step 20 answered better"


@pytest.mark.parametrize("exchanged", [True, False])
def test_in_a_blind_talk_nothing_names_them_before_the_vote(exchanged):
    seats = Seats(blind=True, exchanged=exchanged)
    for side in ("left", "right"):
        assert not {"base", "tuned"} & set(f"{seats.label(side)} {seats.button(side)}".lower().replace(":", "").split())
    assert seats.sorted(*seats.sorted("b", "t")) == ("b", "t")
    left = "Tuned" if exchanged else "Base"
    assert seats.name("left") == left and seats.revealed().label("left") == f"A: {left}" and not seats.revealed().hidden


def test_seats_are_drawn_by_lot():
    left = Counter(Seats().drawn().name("left") for _ in range(400))
    assert 140 < left["Base"] < 260


def test_of_two_that_answer_in_turn_neither_speaks_before_both_are_done_while_it_is_hidden():
    """The base comes first: whoever saw it would know which it is."""
    in_turn, at_once = Answers("Because.", together=False), Answers("Because.", together=True)

    def words(answers, seats):
        now = Talk(seats, *[({"role": "user", "content": "Why?"},)] * 2).answered(answers)
        return [now.shown(side).split("<p dir")[-1].split(">")[1].split("<")[0] for side in ("left", "right")]

    hidden = Seats(blind=True, exchanged=True)
    assert words(in_turn, hidden) == ["…", "…"]
    assert words(at_once, hidden) == ["…", "Because."]
    assert words(in_turn, hidden.revealed()) == ["…", "Because."]
    assert words(Answers("Because.", "So.", together=False, done=True), hidden) == ["So.", "Because."]


# --- counting -------------------------------------------------------------------------------------------------------------


def test_votes_are_counted_and_told_with_their_interval(run, tmp_path):
    studio = Studio(tmp_path, Queue(tmp_path))
    assert counted(run) == Tally() and pairing.tally(studio, run) == pairing.tally(studio, None) == ""
    for preferred in ["tuned"] * 8 + ["base"] * 2 + ["neither"]:
        vote(run, preferred)
    assert counted(run) == Tally(first=2, second=8, neither=1)
    told = counted(run).in_words()
    assert told.startswith("11 blind votes: Tuned was preferred 8 times, Base twice, and no difference seen once.")
    assert "Tuned won 80.0 % of those decided (95 % interval 49.0 to 94.3 %), which chance alone could do" in told
    assert "11 blind votes" in pairing.tally(studio, run)


@pytest.mark.parametrize(("tally", "told"), [
    (Tally(second=1), "1 blind vote: Tuned was preferred once, Base never. Tuned won 100.0 % of those decided"),
    (Tally(neither=3), "3 blind votes: Tuned was preferred never, Base never, and no difference seen 3 times."),
    (Tally(first=1, second=9), "more than chance would do."),
    (Tally(first=9, second=1), "Tuned won 10.0 % of those decided (95 % interval 1.8 to 40.4 %), fewer than chance would give.")])
def test_few_votes_and_clear_ones_are_told_as_such(tally, told):
    assert told in tally.in_words()


def test_votes_on_an_earlier_adapter_no_longer_count(run):
    vote(run, "tuned")
    events.append(jobs.of(run).log, events.Resumed(20))
    assert counted(run).votes == 1
    events.append(jobs.of(run).log, events.Saved(40, "adapter"))
    assert counted(run).votes == 0
    vote(run, "base")
    assert counted(run) == Tally(first=1)
    assert votes.tally(run, (BASE, Candidate(run.name, 20))) == Tally(second=1), "They are votes on its checkpoint of that step."


def test_votes_between_two_runs_count_whichever_of_them_is_in_view(run, tmp_path):
    other = stopped_after(30, tmp_path)
    pair = (Candidate(run.name, 20), Candidate(other.name, 30))
    votes.add(run, pair, 1, "Why?")
    votes.add(other, pair[::-1], 0, "How?")
    votes.add(other, pair, 0, "When?")
    assert votes.tally(run, pair) == votes.tally(other, pair) == Tally(first=1, second=2)
    assert votes.tally(other, pair[::-1]) == Tally(first=2, second=1)
    assert counted(run) == counted(other) == Tally()


def test_a_spoiled_line_costs_one_vote_only(run):
    vote(run, "tuned", "Wie geht's?\nGut\u2028!")
    with open(run.folder / votes.FILE, "ab") as lines:
        lines.write(b'{"preferred": "base"\n\xff\xfe\n[1]\n{"preferred": ["x"], "between": ["base"]}\n{"preferred": "base", "between": 5}\n')
    vote(run, "base")
    assert counted(run) == Tally(first=1, second=1)
    assert json.loads((run.folder / votes.FILE).read_bytes().splitlines()[0])["question"] == "Wie geht's?\nGut\u2028!"


def test_the_card_tells_the_votes_between_base_and_tuned_and_nothing_of_the_questions(run):
    votes.add(run, (Candidate(run.name, 10), Candidate(run.name, 20)), 1, "a private question")
    assert "Blind votes" not in card.render(run, "adapter", "ada/tuned")
    vote(run, "tuned", "a private question")
    readme = card.render(run, "adapter", "ada/tuned")
    assert "## Blind votes" in readme and "1 blind vote: Tuned was preferred once" in readme
    assert "a private question" not in readme
