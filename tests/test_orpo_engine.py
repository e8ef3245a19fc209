"""The engine's parts: the loss at its edges, rows and what they weigh, memory, and what happens when numbers blow up."""

import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from studio import passes
from studio.engine.orpo import memory, packing
from studio.engine.orpo.loss import Scores, log1mexp, log_odds
from studio.engine.orpo.packing import Weighted
from studio.engine.orpo.scoring import Scorer
from studio.engine.orpo.trainer import TOKENS_AT_ONCE, BlownUpError, token_budget
from studio.engine.tokens import Encoded
from tests import families
from tests.reference import Watch
from tests.test_orpo_parity import assert_same_steps, ours, settings_on, theirs
from tests.tiny_models import saved, tiny_model

# --- the loss --------------------------------------------------------------------------------------------------------


def test_log1mexp_keeps_its_digits_near_zero_and_far_below():
    x = torch.tensor([-1e-6, -1e-3, -0.3, -math.log(2), -1.0, -20.0, -80.0])
    exact = torch.log1p(-torch.exp(x.double()))
    assert torch.allclose(log1mexp(x).double(), exact, rtol=1e-6, atol=1e-30)


def test_a_certain_answer_has_finite_odds_and_a_finite_gradient():
    chosen = torch.tensor([0.0, -1e-9, -2.0], requires_grad=True)
    odds = log_odds(chosen, torch.tensor([-1.0, 0.0, 0.0]))
    odds.sum().backward()
    assert torch.isfinite(odds).all() and torch.isfinite(chosen.grad).all()


def test_equal_answers_have_even_odds_and_no_margin():
    scores = Scores(torch.tensor([-1.5]), torch.tensor([-1.5]), torch.tensor(2.0))
    assert scores.loss(0.1, torch.ones(1)).item() == pytest.approx(2.0 + 0.1 * math.log(2))


# --- rows ------------------------------------------------------------------------------------------------------------


def pair(prompt, chosen, rejected):
    return Encoded(prompt, np.array(chosen), np.array(rejected))


def test_a_prompt_stands_once_and_the_branch_goes_on_from_it():
    batch = packing.pack([Weighted(pair(2, [5, 6, 7, 8], [5, 6, 9]), 1.0, 0.25)])
    assert batch.ids.tolist() == [[5, 6, 7, 8, 9]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 2]]
    assert batch.counts.tolist() == [2, 2, 1, 1, 1]
    # 6, 7 and 8 are predicted by the tokens before them, 9 by the last shared one.
    assert list(zip(batch.at.tolist(), batch.targets.tolist(), strict=True)) == [(0, 6), (1, 7), (2, 8), (1, 9)]
    assert batch.weights.tolist() == [[0, 0.5, 0.5, 0], [0, 0, 0, 1], [0.25, 0.25, 0.25, 0]]


def test_answers_that_begin_alike_share_more_than_the_prompt():
    batch = packing.pack([Weighted(pair(1, [5, 6, 7], [5, 6, 8, 9]), 1.0, 0.5)])
    assert batch.ids.tolist() == [[5, 6, 7, 8, 9]]
    assert batch.weights[1].tolist() == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3])


def test_an_answer_that_is_the_beginning_of_the_other_needs_no_branch():
    shorter = packing.pack([Weighted(pair(1, [5, 6, 7], [5, 6]), 1.0, 0.5)])
    assert shorter.ids.tolist() == [[5, 6, 7]] and shorter.weights[1].tolist() == [1, 0]
    longer = packing.pack([Weighted(pair(1, [5, 6], [5, 6, 7]), 1.0, 0.5)])
    assert longer.ids.tolist() == [[5, 6, 7]] and longer.at.tolist() == [0, 1]


def test_pairs_fill_rows_up_to_the_budget_and_none_is_lost():
    rng = np.random.default_rng(0)
    found = [Weighted(pair(3, [1] * 3 + [2] * rng.integers(1, 90), [1] * 3 + [3] * rng.integers(1, 90)), 1.0, 1.0) for _ in range(50)]
    groups = packing.grouped(found, 200, packed=True)
    sizes = [sum(packing.cost(one.pair, True) for one in group) for group in groups]
    assert sorted(map(id, found)) == sorted(id(one) for group in groups for one in group)
    assert max(sizes) <= 200 and sum(sizes) / len(sizes) > 180


def test_a_pair_over_the_budget_is_computed_alone():
    found = [Weighted(pair(1, [1] * 50, [1] + [2] * 50), 1.0, 1.0), Weighted(pair(1, [1, 2], [1, 3]), 1.0, 1.0)]
    assert [len(group) for group in packing.grouped(found, 10, packed=True)] == [1, 1]
    assert [len(group) for group in packing.grouped(found, 10, packed=False)] == [1, 1]


def test_a_pass_takes_as_many_pairs_of_a_step_as_keep_the_device_busy_whatever_its_batches_are():
    settings = settings_on("practice", **{"training.batch_size": 1, "training.accumulation": 8}).training
    assert token_budget(settings, 200, "cuda") == 8 * 200
    assert token_budget(settings, 200, "cpu") == TOKENS_AT_ONCE["cpu"] and token_budget(settings, 5000, "cpu") == 5000


# --- experts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_the_router_s_loss_is_the_reference_s(tmp_path, packed):
    base = saved(tiny_model("mixtral", **families.EXPERTS, output_router_logits=True, router_aux_loss_coef=0.5), tmp_path / "base")
    settings = settings_on(base)
    assert_same_steps(ours(settings, tmp_path, packed=packed), theirs(settings, tmp_path))


# --- memory ----------------------------------------------------------------------------------------------------------


def test_recomputed_layers_keep_less_and_change_nothing():
    found, kept, results = families.pairs(), [], []
    for count in (0, 2, 4):
        model = families.with_adapter("llama")
        scorer = Scorer(model, filler=0).choose(found)
        memory.recompute(scorer.causal, count)
        kept.append(memory.measure(scorer, found[0]).per_token)
        model.train()
        batch = scorer.batch(packing.weigh(found, len(found)))
        with scorer.attending():
            scores, _ = scorer.score(batch)
            results.append(families.gradients(model, scores.loss(0.1, batch.shares)))
    assert kept[0] > 1.5 * kept[1] > 1.5 * kept[2]
    assert all(torch.equal(results[0], other) for other in results[1:])


class Products(TorchDispatchMode):
    """How many products of matrices are computed of which neither factor is as narrow as an adapter."""

    def __init__(self):
        super().__init__()
        self.large = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        name = operator._schema.name
        factors = {"aten::mm": args[:2], "aten::addmm": args[1:3], "aten::addmm_": args[1:3]}.get(name, ())
        self.large += name == "bitsandbytes::gemm_4bit" or bool(factors) and min(size for factor in factors for size in factor.shape) >= 32
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, "4 bits"])
def test_a_recomputed_layer_is_spared_its_last_large_product_in_16_and_4_bits_as_well(precision):
    counts = []
    for recomputed in (0, 3):
        model = families.with_adapter("llama")
        if precision == "4 bits":
            families.quantize(model)
        for name, weight in model.named_parameters():
            weight.data = weight.data if "lora_" in name or precision == "4 bits" else weight.data.to(precision)
        scorer = Scorer(model, filler=0).choose(families.pairs())
        memory.recompute(scorer.causal, recomputed)
        model.train()
        batch = scorer.batch(packing.weigh(families.pairs(), len(families.pairs())))
        with Products() as products, scorer.attending():
            scores, _ = scorer.score(batch)
            scores.loss(0.1, batch.shares).backward()
        counts.append(products.large)
    assert counts[1] - counts[0] == 3 * (7 - 1)


def test_as_few_layers_are_recomputed_as_the_free_memory_asks_for():
    kept = passes.Kept(per_token=1_000_000, entry=1_000, layers=10)
    whole = kept.needed(10_000, 0)
    assert kept.choose(10_000, int(whole / passes.USABLE) + 1) == 0
    assert kept.choose(10_000, int(0.75 * whole / passes.USABLE)) == 3
    assert kept.choose(10_000, 1) == 9
    needs = [kept.needed(10_000, count) for count in range(10)]
    assert needs == sorted(needs, reverse=True)


def test_passes_get_smaller_before_a_layer_is_recomputed():
    kept = passes.Kept(per_token=1_000_000, entry=1_000, layers=10)

    def room_for(tokens):
        return int(kept.needed(tokens, 0) / passes.USABLE) + 1

    assert kept.plan(16_000, 4_000, 1_000, room_for(16_000)) == (16_000, 0)
    assert kept.plan(16_000, 4_000, 1_000, room_for(15_000)) == (8_000, 0)
    assert kept.plan(16_000, 5_000, 1_000, room_for(6_000)) == (5_000, 0)
    assert kept.plan(16_000, 5_000, 1_000, room_for(4_000)) == (5_000, 3)
    assert kept.plan(3_000, 3_000, 3_000, room_for(2_900))[0] == 3_000


def test_what_does_not_fit_however_much_is_recomputed_goes_in_passes_as_small_as_the_longest_pair():
    kept = passes.Kept(per_token=1_000_000, entry=1_000, layers=10)
    free = int(kept.needed(1_000, 9) / passes.USABLE) + 1
    assert kept.plan(16_000, 4_000, 600, free) == (1_000, 9)
    assert kept.plan(16_000, 4_000, 600, free // 10) == (600, 9)
    assert kept.plan(16_000, 4_000, 600, int(kept.needed(2_000, 0) / passes.USABLE) + 1, settled=0) == (2_000, 0)


def test_a_run_in_little_memory_takes_the_same_steps_in_smaller_passes(tmp_path, monkeypatch):
    """Free is nine tenths of what the largest pass would need."""
    base = saved(tiny_model("llama", hidden_size=128, intermediate_size=256, initializer_range=0.02), tmp_path / "base")
    settings = settings_on(base, **{"training.batch_size": 8, "training.gradient_checkpointing": "auto"})
    plenty = ours(settings, tmp_path)
    real, kept = memory.measure, []

    def measured(*asked):
        kept.append(real(*asked))
        return kept[-1]

    monkeypatch.setattr(memory, "measure", measured)
    monkeypatch.setattr(memory, "free_bytes", lambda device: int(0.9 * kept[-1].needed(plenty.trainer.budget, 0) / passes.USABLE))
    monkeypatch.setitem(passes.ENOUGH, "cpu", 1)
    little = ours(settings, tmp_path)
    assert little.trainer.budget == plenty.trainer.budget // 2 and little.trainer.recomputed == plenty.trainer.recomputed == 0
    assert f"up to {little.trainer.budget:,} tokens go through the model at once" in little.trainer.in_words()
    assert_same_steps(little, plenty)


# --- numbers that blow up --------------------------------------------------------------------------------------------


@pytest.mark.fault("T15")
def test_a_gradient_that_is_no_number_is_found_before_the_optimizer_takes_it(tmp_path, monkeypatch):
    """The third step's loss is made infinite; the adapter must be that of the second."""
    steps, adapters = [], []
    real = Scores.loss

    def sick(self, beta, weights):
        steps.append(1)
        return real(self, beta, weights) * (math.inf if len(steps) == 3 else 1)

    monkeypatch.setattr(Scores, "loss", sick)
    monkeypatch.setattr(Watch, "on_step_end", lambda self, args, state, control, model=None, **_: adapters.append(
        [weight.detach().clone() for weight in model.parameters() if weight.requires_grad]), raising=False)
    import tests.test_orpo_parity as parity

    trainers = []
    monkeypatch.setattr(parity.orpo, "build", lambda *inputs, build=parity.orpo.build: trainers.append(build(*inputs)) or trainers[-1])
    with pytest.raises(BlownUpError, match="blew up at step 3: the loss is inf") as caught:
        ours(settings_on("practice"), tmp_path, budget=10**6)
    assert caught.value.step == 2
    now = [weight for weight in trainers[0].model.parameters() if weight.requires_grad]
    assert all(torch.equal(one, other) for one, other in zip(now, adapters[1], strict=True))
