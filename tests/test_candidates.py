"""Who can be compared: offered are those that share a base, each by a name that says which it is."""

import pytest

from studio import about, candidates, events, jobs, runs
from studio.candidates import BASE, Candidate
from studio.errors import StudioError
from studio.jobs import Queue
from studio.ui import pairing
from studio.ui.studio import Studio
from tests.jobs_at_work import practice, said


def run_with(root, steps=(), **changes) -> runs.Run:
    """A run with an adapter, and with checkpoints of those steps."""
    run = runs.create(root, practice(**changes))
    run.adapter.mkdir()
    for step in steps:
        (run.checkpoints / f"step-{step:08d}").mkdir(parents=True)
        (run.checkpoints / f"step-{step:08d}" / "manifest.json").touch()
    return run


def test_a_run_is_offered_with_its_base_its_checkpoints_and_other_runs_on_the_same_base(tmp_path):
    run, other = run_with(tmp_path, (20, 100)), run_with(tmp_path, (7,), **{"adapter.rank": 4, "model.device": "cpu"})
    run_with(tmp_path, **{"model.quantization": "nf4"})
    run_with(tmp_path, **{"model.name": "ada/other"})
    runs.create(tmp_path, practice())  # without an adapter
    (run_with(tmp_path).folder / "settings.yaml").write_text("[not settings", encoding="utf-8")
    about.write(other, "Four ranks", "")
    there = candidates.offered(run, runs.listed(tmp_path))
    assert there == [BASE, Candidate(run.name), Candidate(run.name, 100), Candidate(run.name, 20), Candidate(other.name), Candidate(other.name, 7)]
    assert [candidates.name(candidate, run) for candidate in there] == [
        "Base", "Tuned", "Step 100", "Step 20", "Four ranks", "Four ranks, step 7"]
    assert [candidates.in_list(candidate, run) for candidate in there] == [
        "Base, as it was before training", "Tuned, the run in view", "Step 100 of the run in view", "Step 20 of the run in view",
        f"Four ranks · {other.name}", f"Four ranks · {other.name}, step 7"]


def test_beside_a_run_without_an_adapter_nobody_is_offered(tmp_path):
    run_with(tmp_path)
    assert candidates.offered(runs.create(tmp_path, practice()), runs.listed(tmp_path)) == []


def test_many_runs_are_offered_up_to_a_limit(tmp_path):
    run = run_with(tmp_path)
    for _ in range(candidates.MOST + 5):
        run_with(tmp_path)
    assert len(candidates.offered(run, runs.listed(tmp_path))) == candidates.MOST + 1


@pytest.mark.parametrize("candidate", [BASE, Candidate("a-run.2"), Candidate("a-run", 0), Candidate("a-run", 12_345)])
def test_what_is_written_is_read_again(candidate):
    assert Candidate.parse(str(candidate)) == candidate


@pytest.mark.parametrize("text", ["", None, 5, "Base", "run", "run@", "@5", "run@-1", "run@5x", "../run@5", "run/..@last", "run@٣", "run@last\n",
                                  "run@" + "9" * 50])
def test_what_is_no_candidate_is_told(text):
    with pytest.raises(StudioError, match="nobody who could answer"):
        Candidate.parse(text)


def test_a_run_is_known_by_the_step_that_it_has_now(tmp_path):
    run = run_with(tmp_path)
    assert Candidate(run.name).at(said(run)) == Candidate(run.name)
    events.append(jobs.of(run).log, events.Saved(20, "adapter"))
    assert Candidate(run.name).at(said(run)) == Candidate(run.name, 20)
    assert Candidate(run.name, 7).at(said(run)) == Candidate(run.name, 7) and BASE.at(said(run)) == BASE


def test_the_page_says_who_sits_where(tmp_path):
    run, studio = run_with(tmp_path, (20,)), Studio(tmp_path, Queue(tmp_path))
    usual = pairing.lead(studio, run.name)
    assert f"Left: the practice model as it was. Right: the practice model after run {run.name}." in usual
    both = pairing.lead(studio, run.name, f"{run.name}@20", f"{run.name}@last")
    assert f"Left: the practice model after step 20 of run {run.name}. Right: the practice model after run {run.name}." in both
    assert "Which is which is drawn" in pairing.lead(studio, run.name, "base", f"{run.name}@20", blind=True)
    assert "Choose two that differ" in pairing.lead(studio, run.name, "base", "base")
    assert "nobody who could answer" in pairing.lead(studio, run.name, "<b>", "base")
