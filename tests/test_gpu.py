"""The same run on a CUDA card: what only a card can show."""

import pytest

from studio import events, gpu, jobs, runs
from tests.jobs_at_work import ended, heard, log_of, practice

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not gpu.cards(), reason="this machine has no NVIDIA card")]


@pytest.mark.parametrize(("quantization", "optimizer"), [("none", "adamw_torch"), ("nf4", "paged_adamw_8bit"), ("int8", "adamw_8bit")])
def test_a_run_computes_on_the_card_and_says_how_much_memory_it_took(tmp_path, quantization, optimizer):
    run = runs.create(tmp_path, practice(**{"model.device": "gpu", "model.quantization": quantization,
                                            "training.optimizer": optimizer, "training.gradient_checkpointing": "full"}))
    jobs.start(jobs.of(run))
    assert ended(run) == "finished", log_of(run)
    assert heard(run, events.Started)[0].device != "cpu"
    assert heard(run, events.Stepped)[-1].memory > 0


@pytest.mark.parametrize("window", [None, 3])
def test_one_call_over_stretches_of_different_lengths_is_aligned_to_the_last_queries(window):
    """The kernel of the fast path: with more keys than queries, its causal triangle must end in the lower right corner."""
    import torch

    from studio.engine.orpo import attention
    from tests.test_orpo_attention import BRANCHES, TOKENS, by_mask

    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, TOKENS, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True) for heads in (4, 2, 2))
    assert attention._takes_varlen(query, value)
    out = attention._one_call(query, key, value, attention.Layout(BRANCHES, query.device), None, window)
    exact = by_mask(*(side.float().cpu() for side in (query, key, value)), window)
    assert torch.allclose(out.float().cpu(), exact, atol=2e-2)
    out.float().square().sum().backward()
    assert all(torch.isfinite(side.grad).all() for side in (query, key, value))


def test_packed_steps_on_the_card_are_those_on_the_cpu():
    """In float32, where the card takes attention stretch by stretch."""

    from studio.engine.orpo import packing
    from studio.engine.orpo.scoring import Scorer
    from tests import families

    losses = []
    for device in ("cpu", "cuda"):
        scorer = Scorer(families.with_adapter("llama").to(device), filler=0).choose(families.pairs())
        batch = scorer.batch(packing.weigh(families.pairs(), 4))
        with scorer.attending():
            scores, _ = scorer.score(batch)
        losses.append(scores.loss(0.1, batch.shares).item())
        assert scorer.packed
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_the_card_is_named_with_its_memory():
    card = gpu.cards()[0]
    assert card.total > card.used >= 0 and card.name in gpu.in_words([card])


@pytest.mark.parametrize("computed_by", ["torch", "our kernels"])
def test_a_pass_never_waits_for_the_card(computed_by):
    """Torch itself refuses whatever would wait, from the batch's way to the card to the gradients and metrics."""
    import torch

    from studio.engine.orpo import arithmetic, packing
    from studio.engine.orpo.scoring import Scorer
    from tests import families

    with_ = arithmetic.PLAIN if computed_by == "torch" else pytest.importorskip("studio.engine.orpo.triton_kernels").FUSED
    model = families.with_adapter("llama").to("cuda", torch.bfloat16).train()
    scorer = Scorer(model, filler=0, arithmetic=with_).choose(families.pairs())
    assert scorer.packed
    weighted = packing.weigh(families.pairs(), 4)

    def taken():
        batch = scorer.batch(weighted)
        scores, _ = scorer.score(batch)
        scores.loss(0.1, batch.shares).backward()
        return scores.metrics(0.1, batch.shares)

    with scorer.attending():
        taken()  # what is set up once may wait
        torch.cuda.set_sync_debug_mode("error")
        try:
            metrics = taken()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(metrics).all()


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_norms_and_gated_products_on_the_card_give_what_the_model_s_own_give(family):
    import torch

    from studio.engine.orpo import layers
    from studio.engine.orpo.forwards import replaced
    from tests.test_orpo_layers import assert_close, said
    from tests.tiny_models import tiny_model

    model = tiny_model(family).to("cuda", torch.bfloat16).requires_grad_(False)
    rows = torch.randn(1, 64, 64, device="cuda", dtype=torch.bfloat16)
    lean, layer = layers.lean(model), model.model.layers[0]
    for module in (layer.mlp, layer.input_layernorm):
        with torch.autocast("cuda", torch.bfloat16):
            own = said(model, module, rows)
            with replaced({module: lean[module]}):
                assert_close(said(model, module, rows), own, 1e-2)


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_each_of_our_kernels_is_as_exact_as_torch_s_operators_on_the_card(precision):
    import torch

    from studio.engine.orpo import trial
    from tests import families

    dtype = getattr(torch, precision)
    causal = families.with_adapter("llama").to("cuda", dtype).get_base_model()
    _, words = trial.chosen(causal, dtype)
    assert "deviates" not in words and "fails" not in words and "cannot" not in words, words


def test_an_offloaded_head_on_the_card_gives_the_resident_one_s_numbers_and_is_never_there_as_a_whole():
    import torch

    from studio.engine.orpo import head, offload
    from studio.engine.orpo.arithmetic import PLAIN

    weight = torch.nn.Parameter(0.02 * torch.randn(128256, 512, device="cuda", dtype=torch.bfloat16), requires_grad=False)
    in_ram, found, peaks = offload.InRam(weight), [], []
    assert in_ram.weight.is_pinned() and torch.equal(in_ram.weight.cuda(), weight)
    targets = torch.randint(len(weight), (3000,), device="cuda")
    hidden = torch.randn(3000, 512, device="cuda", dtype=torch.bfloat16)
    for matrix in (weight, in_ram):
        taken = hidden.clone().requires_grad_()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        logps = head.FrozenLogps.apply(taken, targets, head.Frozen(matrix, None, 1.0, None), PLAIN)
        peaks.append(torch.cuda.max_memory_allocated() - before)
        logps.sum().backward()
        found.append((logps.detach(), taken.grad))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert peaks[1] - peaks[0] < weight.nbytes / 4


def test_an_offloaded_model_on_the_card_scores_as_the_resident_one():
    import torch

    from studio.engine.orpo import offload, packing
    from studio.engine.orpo.scoring import Scorer
    from tests import families

    found = []
    for moved in (False, True):
        tuned = families.with_adapter("llama").to("cuda", torch.bfloat16)
        if moved:
            offload.to_ram(tuned.get_base_model())
        scorer = Scorer(tuned, filler=0).choose(families.pairs())
        batch = scorer.batch(packing.weigh(families.pairs(), 4))
        with scorer.attending():
            scores, _ = scorer.score(batch)
        scores.loss(0.1, batch.shares).backward()
        found.append(torch.stack([scores.chosen, scores.rejected]))
        assert scorer.packed and tuned.device.type == "cuda" and bool(offload.bytes_in_ram(tuned.get_base_model())) is moved
    assert torch.equal(*found)
