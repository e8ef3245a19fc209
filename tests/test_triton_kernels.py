"""The engine's Triton kernels give what torch's operators give, compile for every card, and are used only where that was seen."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import cycle

import bitsandbytes as bnb
import pytest
import torch

from studio.engine.orpo import arithmetic, frozen, head, packing, rotary, trial
from studio.engine.orpo.arithmetic import PLAIN, Arithmetic, Sums, Tile
from studio.engine.orpo.head import Frozen
from studio.engine.orpo.scoring import Scorer
from studio.errors import StudioError
from studio.jobs import PROJECT
from tests import families
from tests.tiny_models import tiny_model

kernels = pytest.importorskip("studio.engine.orpo.triton_kernels", reason="this machine has no Triton")
interpreted = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="there is a card: tests/test_gpu.py tries the kernels on it")


# 16 bits are float16 here: the interpreter cuts bfloat16 off where a card rounds.


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_close(ours, theirs, tolerance=1e-6):
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    assert (ours - theirs).float().norm() <= tolerance * theirs.float().norm()


# --- each kernel ------------------------------------------------------------------------------------------------------


@interpreted
@pytest.mark.parametrize("again", [True, False])
@pytest.mark.parametrize("kind", ["silu", "gelu"])
def test_interpreted_gated_products_are_torch_s_for_the_halves_of_a_joint_projection_as_well(kind, again):
    gate, up = random(7, 2 * 1030).chunk(2, dim=-1)
    assert_close(kernels.gated(gate, up, kind), arithmetic._gated(gate, up, kind))
    ours, theirs = (backward(random(7, 1030, seed=1), gate, up, kind, again) for backward in (kernels.gated_backward, arithmetic._gated_backward))
    assert (ours[2] is None) == (theirs[2] is None) == (not again)
    for one, other in zip(ours[: 2 + again], theirs[: 2 + again], strict=True):
        assert_close(one, other)


@interpreted
@pytest.mark.parametrize(("width", "scale_in"), [(48, torch.float32), (96, torch.float16), (2100, torch.float32)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_interpreted_norms_are_torch_s_of_rows_of_any_width_in_16_and_in_32_bits(width, scale_in, dtype):
    scale, upstream = 1 + random(width, dtype=scale_in), random(2, 37, width, seed=2, dtype=dtype)
    found = []
    for norm in (kernels.norm, PLAIN.norm):
        x = random(2, 37, width, seed=1, dtype=dtype).requires_grad_()
        y = norm(scale, 1e-6, x)
        y.backward(upstream)
        found.append((y.detach(), x.grad))
    for ours, theirs in zip(*found, strict=True):
        assert_close(ours, theirs, 1e-6 if dtype is torch.float32 else 1e-3)


@interpreted
@pytest.mark.parametrize(("batch", "angles", "width"), [(1, 1, 32), (2, 1, 24), (2, 2, 80)])
def test_interpreted_rotary_positions_are_the_model_s_own(batch, angles, width):
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    turns = random(angles, 5, width)  # no two halves alike
    found = []
    for rotate in (kernels.rotary, apply_rotary_pos_emb):
        queries, keys = (random(batch, 5, heads, width, seed=heads).transpose(1, 2).requires_grad_() for heads in (11, 3))
        made = rotate(queries, keys, turns.cos(), turns.sin())
        given = torch.autograd.grad(made, (queries, keys), [random(*one.shape, seed=9) for one in made])
        found.append([*made, *given])
    for ours, theirs in zip(*found, strict=True):
        assert_close(ours, theirs)


@interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("bias", "scale", "softcap"), [(False, 1.0, None), (True, 0.25, None), (True, 1.0, 5.0)])
def test_interpreted_tiles_bring_the_sums_of_a_softmax_up_to_date_as_torch_does(bias, scale, softcap, dtype):
    rows, words = 6, kernels.TILE_WIDE + 100
    matrix = Frozen(random(3 * words, 8), random(3 * words, seed=3) if bias else None, scale, softcap)
    targets = torch.tensor([0, words - 1, words, 2 * words + 5, 3 * words - 1, 7])
    found = []
    for tile in (kernels.tile, PLAIN.tile):
        sums = Sums.of(rows, torch.device("cpu"))
        made = [tile(Tile(4 * random(rows, words, seed=first), targets, first, sums, matrix, dtype, True)) for first in range(0, 3 * words, words)]
        found.append([sums.highest, sums.total, sums.at_target, sums.shrink, *made])
    for ours, theirs in zip(*found, strict=True):
        assert_close(ours, theirs, 3e-6 if ours.dtype is torch.float32 else 1e-3)


@interpreted
@pytest.mark.parametrize("softcap", [None, 10.0])
def test_the_interpreted_head_gives_the_same_log_probabilities_and_slopes(softcap):
    matrix = Frozen(random(700, 24), None, 1.0, softcap)
    hidden, targets = random(33, 24, seed=1), torch.arange(33) * 20
    block = torch.empty(33 * 128)
    for wanted in (True, False):
        ours, theirs = (head.streamed(hidden, targets, matrix, block, wanted, one) for one in (kernels.FUSED, PLAIN))
        assert_close(ours[0], theirs[0])
        if wanted:
            assert_close(ours[1], theirs[1], 3e-6)


@interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_interpreted_unpacking_gives_the_weight_that_bitsandbytes_gives_to_the_last_bit(kind, nested, dtype):
    layer = bnb.nn.Linear4bit(96, 70, bias=False, compute_dtype=dtype, quant_type=kind)
    layer.weight = bnb.nn.Params4bit(random(70, 96, dtype=dtype), requires_grad=False, quant_type=kind, compress_statistics=nested)
    layer = layer.to("cpu")
    assert torch.equal(kernels.FUSED.unpack(layer), PLAIN.unpack(layer))


# --- in the engine ----------------------------------------------------------------------------------------------------


def stepped(name: str, with_: Arithmetic) -> tuple[Scorer, torch.Tensor]:
    """Loss and gradient of a family's tiny model in one vector."""
    family, options = families.FAMILIES[name]
    model = families.with_adapter(family, **options, num_hidden_layers=2)
    pairs = families.pairs()[1::2]  # the short ones: the interpreter takes its time
    scorer = Scorer(model, filler=0, arithmetic=with_).choose(pairs)
    batch = scorer.batch(packing.weigh(pairs, 2))
    with scorer.attending():
        scores, _ = scorer.score(batch)
        loss = scores.loss(0.1, batch.shares)
        return scorer, torch.cat([loss.detach()[None], families.gradients(model, loss)])


@interpreted
@pytest.mark.parametrize("name", ["Llama", "Gemma 2", *(pytest.param(name, marks=pytest.mark.slow) for name in
                                                       ("Qwen3", "Gemma 3", "Phi-3", "GLM-4", "Granite", "gpt-oss"))])
def test_a_step_with_interpreted_kernels_is_the_same_step(name):
    (scorer, ours), (_, theirs) = stepped(name, kernels.FUSED), stepped(name, PLAIN)
    assert scorer.packed and not scorer.remark
    assert (ours - theirs).norm() <= 5e-6 * theirs.norm()


@interpreted
def test_a_step_on_4_bits_with_interpreted_kernels_is_the_same_step(monkeypatch):
    monkeypatch.setattr(frozen, "FEW", 0)
    monkeypatch.setattr(families, "with_adapter", lambda *given, made=families.with_adapter, **options: families.quantize(made(*given, **options)))
    (_, ours), (_, theirs) = stepped("Llama", replace(PLAIN, unpack=kernels.FUSED.unpack)), stepped("Llama", PLAIN)
    assert (ours - theirs).norm() <= 1e-6 * theirs.norm()


@interpreted
@pytest.mark.parametrize(("family", "taken"), [("llama", True), ("gemma2", True), ("glm4", False), ("cohere", False), ("gpt_oss", False)])
def test_an_interpreted_rotation_replaces_a_model_s_own_only_where_it_gives_the_same_and_for_as_long_as_asked(family, taken):
    causal = tiny_model(family)
    home = sys.modules[type(causal).__module__]
    own, rotation = getattr(home, rotary.NAME), rotary.Rotation(causal, kernels.rotary)
    assert bool(rotation.own) == taken
    with rotation.replaced():
        assert (getattr(home, rotary.NAME) is not own) == taken
    assert getattr(home, rotary.NAME) is own


@interpreted
def test_a_class_that_no_module_holds_does_not_keep_an_interpreted_rotation_from_its_place():
    causal = tiny_model("llama")
    causal.extra = type("Made", (torch.nn.Module,), {"__module__": "of.no.file"})()
    assert rotary.Rotation(causal, kernels.rotary).own


@interpreted
def test_calls_that_an_interpreted_rotation_was_not_compared_on_take_the_model_s_own_way():
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    called = []

    def ours(*given):
        called.append(given)
        return kernels.rotary(*given)

    guarded = rotary._guarded(apply_rotary_pos_emb, ours)
    queries, keys, turns = random(1, 4, 5, 32), random(1, 2, 5, 32), random(1, 5, 32)
    guarded(queries, keys, turns.cos(), turns.sin())
    assert len(called) == 1
    in_rows = [one.transpose(1, 2) for one in (queries, keys)]
    made = guarded(*in_rows, turns.cos(), turns.sin(), unsqueeze_dim=2)
    half = guarded(queries.bfloat16(), keys.bfloat16(), turns.cos(), turns.sin())
    assert len(called) == 1 and half[0].dtype is torch.float32
    assert torch.equal(made[0].transpose(1, 2), apply_rotary_pos_emb(queries, keys, turns.cos(), turns.sin())[0])


def test_two_scorers_of_one_model_each_compute_by_their_own_arithmetic():
    """As the card's check does, which times one against the other."""
    called, model = [], families.quantize(families.with_adapter("llama", num_hidden_layers=1)).train()
    counting = replace(PLAIN, unpack=lambda base: called.append(base) or PLAIN.unpack(base))
    pairs = families.pairs()[1::2]
    first, second = Scorer(model, filler=0, arithmetic=counting), Scorer(model, filler=0)
    first.packed = second.packed = True
    for scorer, calls in ((second, False), (first, True)):
        called.clear()  # layers are tried out when a scorer is made
        batch = scorer.batch(packing.weigh(pairs, 2))
        with scorer.attending():
            scores, _ = scorer.score(batch)
            scores.loss(0.1, batch.shares).backward()
        assert bool(called) is calls


# --- the choice -------------------------------------------------------------------------------------------------------


def clocked(ours: float):
    """A clock by which torch's operators take a second and ours this many, measured one after the other."""
    readings = cycle([1.0, ours])
    return lambda call: next(readings)


def llama():
    """One layer on 4 bits, which has every part."""
    return families.quantize(families.with_adapter("llama", num_hidden_layers=1)).get_base_model()


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(trial, "ROWS", 17)


@interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_interpreted_kernels_are_chosen_where_they_are_as_exact_and_faster(short, dtype):
    causal = llama()
    for weight in causal.parameters():
        weight.data = weight.data.to(dtype) if weight.is_floating_point() else weight.data
    chosen, words = trial.chosen(causal, dtype, clocked(0.5))
    assert chosen == kernels.FUSED
    assert "gated products (2.0 times as fast)" in words and "the head's softmax (2.0 times as fast)" in words and "Torch's" not in words


@interpreted
@pytest.mark.parametrize("wrong", [0.0, 1e-7])
def test_an_interpreted_unpacking_is_chosen_only_where_it_gives_every_bit(short, monkeypatch, wrong):
    causal = llama()
    monkeypatch.setattr(kernels, "FUSED", replace(PLAIN, unpack=lambda base: kernels.unpack(base) * (1 + wrong)))
    chosen, words = trial.chosen(causal, torch.float32, clocked(0.5))
    assert (chosen.unpack is not PLAIN.unpack) == (not wrong) and ("the unpacking of 4-bit weights: the result of our kernel deviates" in words) == bool(wrong)


@interpreted
def test_interpreted_kernels_that_are_not_faster_are_not_chosen(short):
    chosen, words = trial.chosen(llama(), torch.float32, clocked(0.99))
    assert chosen == PLAIN
    assert words == ("Torch's operators compute gated products, norms, rotary positions, the unpacking of 4-bit weights, the head's softmax and "
                     "sums within the head's products: our kernel is 1.01 times as fast.")


@interpreted
@pytest.mark.parametrize("part", ["gated", "norm", "rotary", "tile"])
def test_interpreted_kernels_that_are_wrong_or_fail_are_not_chosen_and_the_others_are(short, monkeypatch, part):
    def fails(*_):
        raise RuntimeError("ptxas fatal: no kernel image\nand more")

    wrong = {"gated": kernels.FUSED.gated._replace(backward=lambda *given: [one * 1.01 for one in kernels.gated_backward(*given)]),
             "norm": lambda scale, eps, x: kernels.norm(scale, eps, x) * 1.0001,
             "rotary": lambda queries, keys, cos, sin: kernels.rotary(queries, keys, cos, -sin),
             "tile": lambda given: kernels.tile(replace(given, first=given.first + 1))}[part]
    for bad, told in ((wrong, "result of our kernel deviates by"), (kernels.FUSED.gated._replace(forward=fails) if part == "gated" else fails, "no kernel image")):
        monkeypatch.setattr(kernels, "FUSED", replace(kernels.FUSED, **{part: bad}))
        chosen, words = trial.chosen(llama(), torch.float32, clocked(0.5))
        assert getattr(chosen, part) == getattr(PLAIN, part) and told in words and "and more" not in words
        assert all(getattr(chosen, name) == getattr(kernels.FUSED, name) for name in trial.NAMES if name != part)


@interpreted
def test_an_interpreted_kernel_that_breaks_the_process_ends_the_run_with_what_to_do_and_can_be_switched_off(short, monkeypatch):
    def broken(*_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(kernels, "FUSED", replace(kernels.FUSED, norm=broken))
    with pytest.raises(StudioError, match=f"for norms, fails on this card .*illegal memory access.* Set the environment variable {trial.SWITCH} to off"):
        trial.chosen(llama(), torch.float32, clocked(0.5))
    monkeypatch.setenv(trial.SWITCH, "off")
    assert trial.chosen(llama(), torch.float32, clocked(0.5)) == (PLAIN, f"All arithmetic is in torch's operators, because {trial.SWITCH} is off.")


@interpreted
def test_trials_of_interpreted_kernels_draw_none_of_the_run_s_random_numbers(short):
    causal, before = llama(), torch.get_rng_state()
    assert trial.chosen(causal, torch.float32, clocked(0.5))[0] == kernels.FUSED
    assert torch.equal(torch.get_rng_state(), before)


@interpreted
def test_interpreted_kernels_for_which_too_little_memory_is_free_are_not_chosen_and_the_run_goes_on(short, monkeypatch):
    causal, real = llama(), torch.randn

    def full(*shape, device=None, **options):
        if device is not None:  # the trials' own
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return real(*shape, **options)

    monkeypatch.setattr(torch, "randn", full)
    chosen, words = trial.chosen(causal, torch.float32, clocked(0.5))
    assert chosen == replace(PLAIN, unpack=kernels.FUSED.unpack), "Nothing random is needed to try that one."
    assert words.endswith("too little memory is free to try our kernel.")


@interpreted
def test_the_trial_of_an_interpreted_gated_product_is_as_wide_as_the_model_s_whatever_its_config_has(short, monkeypatch):
    """Gemma 3n has a list of widths there."""
    causal = llama()
    monkeypatch.setattr(type(causal.config), "get_text_config", lambda self: pytest.fail("The layers are asked."))
    assert trial._gated(causal, random).inputs[0].shape == (17, causal.model.layers[0].mlp.down_proj.in_features)


@pytest.mark.parametrize("words", ["Triton Error [CUDA]: an illegal memory access was encountered", "HIP error: unspecified launch failure"])
def test_a_pretended_card_that_cannot_be_waited_for_after_a_kernel_ends_the_run_with_what_to_do(short, monkeypatch, words):
    def broken(*_):
        raise RuntimeError(words)

    monkeypatch.setattr(kernels, "FUSED", replace(kernels.FUSED, gated=kernels.FUSED.gated._replace(forward=broken)))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", broken)
    with pytest.raises(StudioError, match=f"for gated products, fails on this card .*Set the environment variable {trial.SWITCH} to off"):
        list(trial.outcomes(llama(), torch.float32, clocked(0.5)))


def test_a_pretended_card_is_timed_by_its_own_clock_and_never_waits_for_the_host(monkeypatch):
    done = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            done.append("mark")

        def elapsed_time(self, other):
            return 8.0  # ms

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: done.append("wait"))
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: done.append("sleep"))
    assert trial._on_the_card(lambda: done.append("call")) == 0.008 / trial.REPEATS
    assert done == ["wait", "sleep", "mark", *["call"] * trial.REPEATS, "mark", "wait"] * (1 + trial.ROUNDS)


@interpreted
def test_rotary_positions_of_a_family_that_turns_other_pairs_are_not_tried_with_the_interpreted_kernel(short):
    _, words = trial.chosen(families.with_adapter("gpt_oss", num_hidden_layers=1).get_base_model(), torch.float32, clocked(0.5))
    assert "rotary" not in words and "norms" in words


def test_on_a_cpu_nothing_is_tried_and_nothing_said():
    assert trial.chosen(llama(), torch.float32) == (PLAIN, "")


# --- compiled ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capability", [75, 90, *(pytest.param(one, marks=pytest.mark.slow) for one in (80, 100, 120))])
def test_the_kernels_compile_for_every_card_and_keep_all_their_numbers_in_registers(capability):
    """Ahead of time, by Triton's own compiler and NVIDIA's assembler, which need no card."""
    made = subprocess.run([sys.executable, "-m", "tests.compiled_kernels", str(capability)], cwd=PROJECT, capture_output=True, text=True,
                          env=os.environ | {"TRITON_INTERPRET": "0"}, timeout=250)
    assert made.returncode == 0, made.stderr
    found = [json.loads(line) for line in made.stdout.splitlines() if line.startswith("{")]
    assert {one["kernel"] for one in found} == {"_gated", "_gated_backward", "_norm", "_norm_backward", "_rotate", "_tile", "_unpack"}
    # On compute capability 8.0 the assembler puts two numbers of one norm on the stack, with half of the registers unused.
    assert all(one["spilled"] <= 8 and one["registers"] <= 128 for one in found), found
    # Of a tile in 32 bits the numerators overwrite the products: a warp that reads a target's product late would read a numerator.
    assert all(one["late"] == 0 for one in found), found


def test_the_kernels_are_compiled_once_for_passes_of_any_number_of_tokens():
    asked = "from tests import compiled_kernels as made; print([made.forms(rows) == made.forms(16) for rows in (1, 17, 18, 19, 20, 32)])"
    done = subprocess.run([sys.executable, "-c", asked], cwd=PROJECT, capture_output=True, text=True,
                          env=os.environ | {"TRITON_INTERPRET": "0"}, timeout=250)
    assert done.stdout.strip() == str([True] * 6), done.stderr
