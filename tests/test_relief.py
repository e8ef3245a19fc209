"""Memory that runs out: the run makes its passes smaller, takes the same step again, and ends as if there had been enough."""

import subprocess
import sys

import pytest
import torch

from studio import events, jobs, runs
from studio.engine import evaluate
from studio.engine.orpo import packing, relief
from studio.engine.orpo.scoring import Scorer
from studio.engine.orpo.trainer import TOKENS_AT_ONCE, TooLargeError
from studio.jobs import PROJECT
from studio.summary import Summary
from studio.ui.runs_tab import words
from tests import families
from tests.jobs_at_work import practice, said
from tests.test_orpo_parity import assert_same_steps, ours, settings_on

OUT = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def limited(monkeypatch, tokens: int, after: int = 0) -> list[int]:
    """A card on which a pass of more tokens runs out of memory in its middle, from a later pass on; the sizes of all passes."""
    real, passes = Scorer.score, []

    def score(self, batch):
        passes.append(batch.ids.numel())
        scores = real(self, batch)  # random numbers are drawn before memory is out
        if len(passes) > after and batch.ids.numel() > tokens:
            raise OUT
        return scores

    monkeypatch.setattr(Scorer, "score", score)
    return passes


@pytest.mark.fault("T17")
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_a_step_that_does_not_fit_is_taken_in_smaller_passes_with_the_same_pairs_and_result(tmp_path, monkeypatch, packed):
    settings, sizes = settings_on("practice"), limited(monkeypatch, 10**9)
    enough = ours(settings, tmp_path, packed=packed)
    least, needed = max(sizes) - 1, len(sizes)
    passes = limited(monkeypatch, least)
    scarce = ours(settings, tmp_path, packed=packed)
    assert max(passes) > least and len(passes) > needed, "One was tried, and more were taken."
    # The first divided step's gradient differs by float32's rounding, 2e-7. Adam's first steps divide each gradient by its own
    # size, so that the rounding of those near zero moves weights: later gradients differ by up to 7e-6 (four seeds, both layouts).
    assert_same_steps(scarce, enough, gradient=2e-5)


@pytest.mark.fault("T17")
def test_when_passes_cannot_be_smaller_layers_are_recomputed_and_dropout_draws_the_same_again(tmp_path, monkeypatch):
    settings = settings_on("practice", **{"training.batch_size": 1, "training.accumulation": 4, "adapter.dropout": 0.3,
                                          "training.gradient_checkpointing": "none"})
    monkeypatch.setitem(TOKENS_AT_ONCE, "cpu", 1)
    enough, real, failed = ours(settings, tmp_path), Scorer.score, []

    def once(self, batch):
        scores = real(self, batch)
        if not failed:
            failed.append(True)
            raise OUT
        return scores

    monkeypatch.setattr(Scorer, "score", once)
    scarce = ours(settings, tmp_path)
    assert failed
    assert_same_steps(scarce, enough)


def test_what_does_not_fit_however_it_is_divided_is_told_and_what_was_learned_stays(tmp_path, monkeypatch):
    limited(monkeypatch, 0, after=3)
    with pytest.raises(TooLargeError, match="Lower the maximum length, or choose 4 bits") as caught:
        ours(settings_on("practice"), tmp_path)
    assert caught.value.step >= 1


@pytest.mark.fault("T18")
def test_held_out_pairs_are_measured_in_smaller_batches_with_the_same_figures(monkeypatch):
    scorer = Scorer(families.with_adapter("llama"), filler=0).choose(families.pairs())
    sizes = limited(monkeypatch, 10**9)
    enough = evaluate.measure(scorer, families.pairs(), beta=0.1, batch_size=8)
    limited(monkeypatch, max(sizes) - 1)
    in_halves = evaluate.measure(scorer, families.pairs(), beta=0.1, batch_size=8)
    assert in_halves.metrics == pytest.approx(enough.metrics, rel=1e-5)
    assert in_halves.margins == pytest.approx(enough.margins, rel=1e-3)


def test_a_pass_that_runs_out_of_memory_between_queries_and_keys_leaves_nothing_of_its_graph(monkeypatch):
    """Qwen3 norms the queries before it asks for the keys, which were computed with them."""
    scorer = Scorer(families.with_adapter("qwen3"), filler=0).choose(families.pairs())
    batch, norm = scorer.batch(packing.weigh(families.pairs(), 4)), scorer.causal.model.layers[0].self_attn.q_norm
    joined = [each.func.__self__ for each in scorer._forwards.values() if hasattr(getattr(each, "func", None), "__self__")]

    def runs_out(queries):
        raise OUT

    with scorer.attending():
        with monkeypatch.context() as patched:
            patched.setattr(norm, "forward", runs_out)
            with pytest.raises(torch.OutOfMemoryError):
                scorer.score(batch)
        relief.release()
        assert joined and not any(siblings.waiting.made for siblings in joined), "Keys and values would hold all that came before them."
        scorer.score(batch)
    assert not any(siblings.apart for siblings in joined), "A layer that failed once is joined again."


@pytest.mark.parametrize(("error", "is_one"), [(OUT, True), (MemoryError(), True), (RuntimeError("shape mismatch"), False), (ValueError("out of memory"), False)])
def test_what_says_that_memory_ran_out_is_told_from_other_failures(error, is_one):
    assert relief.ran_out(error) is is_one


def test_the_machine_s_own_words_for_no_memory_are_known():
    program = ("import resource, torch; from studio.engine.orpo import relief\n"
               "resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30,) * 2)\n"
               "try: torch.empty(2**36)\n"
               "except Exception as error: print(relief.ran_out(error))")
    assert subprocess.check_output([sys.executable, "-c", program], cwd=PROJECT, text=True) == "True\n"


# --- a whole run ------------------------------------------------------------------------------------------------------

WORKER = """
import sys, torch
from studio.engine.orpo.scoring import Scorer
from studio.engine.train import train
from studio.engine.worker import work
real, tokens, passes = Scorer.score, int(sys.argv.pop()), []
def score(self, batch):
    passes.append(1)
    if torch.is_grad_enabled() and len(passes) > 8 and batch.ids.numel() > tokens:
        raise torch.OutOfMemoryError("CUDA out of memory.")
    return real(self, batch)
Scorer.score = score
sys.exit(work(train, lambda desk: "cpu"))
"""
CHOICES = {"training.max_steps": 6, "training.batch_size": 8, "training.checkpoint_every": 2}


def trained(root, tokens: int):
    """A run whose worker has a card of so many tokens."""
    run = runs.create(root, practice(**CHOICES))
    subprocess.run([sys.executable, "-c", WORKER, str(run.folder), str(tokens)], cwd=PROJECT, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120)
    return run


@pytest.fixture(scope="module")
def enough(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs"), 10**9)


@pytest.mark.fault("T17")
def test_a_run_whose_memory_runs_out_goes_on_by_itself_and_the_page_says_what_changed(tmp_path, enough):
    run = trained(tmp_path, 150)
    summary, wanted = Summary(said(run)), Summary(said(enough))
    assert isinstance(said(run)[-1], events.Finished) and not wanted.repairs
    assert [step.step for step in summary.steps] == [1, 2, 3, 4, 5, 6]
    assert [step.metrics["loss"] for step in summary.steps] == pytest.approx([step.metrics["loss"] for step in wanted.steps], abs=2e-6)
    assert summary.repairs and "half as many as before" in words(summary) and "went on by itself" in words(summary)
    assert run.settings == enough.settings, "What was chosen stays as it was chosen."


@pytest.mark.fault("T17")
@pytest.mark.slow
def test_a_run_that_cannot_help_itself_fails_in_words_and_keeps_adapter_and_checkpoint(tmp_path):
    run = trained(tmp_path, 1)
    assert jobs.status(jobs.of(run)) == "failed"
    failure = Summary(said(run)).failure
    assert "The memory ran out at step" in failure and "was kept" in failure
    assert run.adapter.is_dir() and run.last_checkpoint
