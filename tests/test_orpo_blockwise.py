"""Attention with a softcap or sinks, block by block, held against one mask over the whole row in float64."""

from functools import partial

import pytest
import torch

from studio.engine.orpo import attention, blockwise
from studio.engine.orpo.attention import Layout
from studio.engine.orpo.head import TILE_BYTES
from studio.engine.orpo.packing import Branch
from tests.test_orpo_attention import seen_by_token

BRANCHES = (Branch(0, 37, 13, 24), Branch(61, 5, 5, 2), Branch(68, 29, 0, 0), Branch(97, 31, 31, 1))
TOKENS, HEADS, KEY_HEADS, WIDTH, SOFTCAP, SCALE = 129, 6, 2, 24, 2.0, 0.7
CPU = torch.device("cpu")
KINDS = {"softcap": (True, False), "sinks": (False, True), "softcap and sinks": (True, True)}


class Layer(torch.nn.Module):
    is_causal = True


def drawn(dtype=torch.float32, sinks=True, tokens=TOKENS):
    """Query, key and value as models hand them over, transposed, and sinks."""
    generator = torch.Generator().manual_seed(0)
    sides = [torch.randn(1, tokens, heads, WIDTH, generator=generator).to(dtype).transpose(1, 2).requires_grad_()
             for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
    return [*sides, torch.randn(HEADS, generator=generator).to(dtype).requires_grad_()] if sinks else sides


def attended(inputs, softcap, window=None, branches=BRANCHES, dropout=0.0):
    """The engine's attention as a layer calls it."""
    query, key, value, *sinks = inputs
    return attention.branch_attention(Layer(), query, key, value, None, dropout, SCALE, Layout(branches, CPU), sliding_window=window,
                                      softcap=SOFTCAP if softcap else None, s_aux=sinks[0] if sinks else None)[0]


def spelled_out(inputs, softcap, window=None):
    """The same in torch's own operations, in the inputs' type, softmax in float32 at least."""
    query, key, value, *sinks = inputs
    key, value = (side.repeat_interleave(HEADS // KEY_HEADS, 1) for side in (key, value))
    scores = query @ key.transpose(2, 3) * SCALE
    if softcap:
        scores = SOFTCAP * torch.tanh(scores / SOFTCAP)
    scores = scores.masked_fill(~seen_by_token(BRANCHES, TOKENS, window), torch.finfo(scores.dtype).min)
    if sinks:
        scores = torch.cat([scores, sinks[0].view(1, -1, 1, 1).expand(1, -1, TOKENS, 1)], -1)
    shares = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(query.dtype)
    return (shares[..., :TOKENS] @ value).transpose(1, 2)


def with_gradients(attend, inputs, *options):
    """The output, and the gradients of query, key, value and sinks for a fixed gradient of the output."""
    out = attend(inputs, *options)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    return [out, *torch.autograd.grad(out, inputs, upstream)]


def deviations(made, truth):
    """Relative deviations in the 2-norm. With a window of one key and no sink all scores have a gradient of 0."""
    return [((one.double() - other).norm() / other.norm().clamp_min(1)).item() for one, other in zip(made, truth, strict=True)]


def truth_of(inputs, *options):
    return with_gradients(spelled_out, [side.detach().double().requires_grad_() for side in inputs], *options)


@pytest.fixture(params=[None, (1, 64), (40_000, 7)], ids=["blocks as they come", "one query and head a block", "odd blocks"])
def blocks(request, monkeypatch):
    """Sizes of blocks: bytes and queries."""
    if request.param:
        monkeypatch.setattr(blockwise, "BLOCK_BYTES", {"cpu": request.param[0]})
        monkeypatch.setattr(blockwise, "ROWS", {"cpu": request.param[1]})


@pytest.fixture(params=["as on a CPU", "as on a card"])
def multiplied(request, monkeypatch):
    """How 16-bit factors are multiplied: made wider first, or as torch.bmm does on CUDA, for which a stand-in runs here."""
    if request.param == "as on a card":
        monkeypatch.setattr(blockwise, "_multiplies_16_bits", lambda factor: True)
        monkeypatch.setattr(blockwise, "_product", lambda left, right, out=None: torch.bmm(left.float(), right.float(), out=out))


@pytest.mark.parametrize("window", [None, 1, 2, 5, 16, 1000])
@pytest.mark.parametrize("kind", KINDS)
def test_softcap_and_sinks_give_what_one_mask_over_the_row_gives_gradients_included(kind, window, blocks):
    softcap, sinks = KINDS[kind]
    inputs = drawn(sinks=sinks)
    made, truth = with_gradients(attended, inputs, softcap, window), truth_of(inputs, softcap, window)
    assert max(deviations(made, truth)) <= 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_softcap_and_sinks_in_64_bits_are_computed_in_64_bits(kind, blocks):
    softcap, sinks = KINDS[kind]
    inputs = [side.detach().double().requires_grad_() for side in drawn(sinks=sinks)]
    assert max(deviations(with_gradients(attended, inputs, softcap, 16), truth_of(inputs, softcap, 16))) <= 1e-14


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_softcap_and_sinks_in_16_bits_are_no_further_from_the_truth_than_torchs_own_operations(kind, dtype, multiplied):
    softcap, sinks = KINDS[kind]
    inputs = drawn(dtype, sinks)
    truth = truth_of(inputs, softcap, 16)
    mine, torchs = (deviations(with_gradients(attend, inputs, softcap, 16), truth) for attend in (attended, spelled_out))
    assert all(one <= other for one, other in zip(mine, torchs, strict=True)), (mine, torchs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_softcap_and_sinks_are_summed_up_in_32_bits_under_autocast_as_well(kind, dtype, multiplied):
    softcap, sinks = KINDS[kind]
    inputs = drawn(dtype, sinks)
    with torch.autocast("cpu", torch.bfloat16):
        made = with_gradients(attended, inputs, softcap, 16)
    assert all(one.equal(other) for one, other in zip(made, with_gradients(attended, inputs, softcap, 16), strict=True))


def test_attention_with_sinks_and_dropout_falls_back_to_torchs_own_operations():
    inputs = drawn()
    assert deviations([attended(inputs, softcap=True, window=16, dropout=1e-12)], [spelled_out(inputs, True, 16).double()])[0] <= 1e-6
    torch.manual_seed(0)
    assert deviations([attended(inputs, softcap=True, window=16, dropout=0.5)], [spelled_out(inputs, True, 16).double()])[0] > 0.1


def of_length(tokens, pairs=1):
    """Branches of as many pairs, half of each shared."""
    half = tokens // pairs // 4
    return tuple(Branch(4 * half * pair, 3 * half, 2 * half, half) for pair in range(pairs))


def saved_bytes(kind, tokens):
    """Bytes that autograd saves, each storage once."""
    softcap, sinks = KINDS[kind]
    sizes = {}

    def count(tensor):
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    inputs = drawn(sinks=sinks, tokens=tokens)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        held = attended(inputs, softcap, branches=of_length(tokens))
    assert held.requires_grad
    return sum(sizes.values())


@pytest.mark.parametrize("kind", KINDS)
def test_what_softcap_and_sinks_keep_for_the_backward_pass_is_in_proportion_to_the_tokens(kind):
    """Query, key, value and a log-sum-exp for each head: 4 bytes each, with sinks another 4 a head."""
    each = 4 * (HEADS * WIDTH + 2 * KEY_HEADS * WIDTH + HEADS)
    for tokens in (64, 512, 1024):
        assert saved_bytes(kind, tokens) == each * tokens + (4 * HEADS if KINDS[kind][1] else 0)


def peak_bytes(run):
    """The most memory that a function holds beyond what there was before it."""
    with torch.profiler.profile(profile_memory=True) as profiler:
        run()
    changes = sorted((event.start_ns(), event.nbytes()) for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]")
    held = most = 0
    for _, change in changes:
        held += change
        most = max(most, held)
    return most


def test_plans_leave_room_for_the_scores_that_softcap_and_sinks_hold():
    """They count the LM head's tile, which is held at another time."""
    assert all(size <= TILE_BYTES[kind] for kind, size in blockwise.BLOCK_BYTES.items())


@pytest.mark.parametrize("kind", KINDS)
def test_softcap_and_sinks_hold_no_more_scores_at_a_time_than_a_block_has(kind, monkeypatch):
    """All that grows beyond the blocks is in proportion to the tokens."""
    monkeypatch.setattr(blockwise, "BLOCK_BYTES", {"cpu": 2**20})
    softcap, sinks = KINDS[kind]
    for tokens in (1024, 2048):
        inputs, layout, row = drawn(sinks=sinks, tokens=tokens), of_length(tokens), 4 * HEADS * WIDTH
        forward = partial(attended, inputs, softcap, branches=layout)
        with torch.no_grad():
            assert peak_bytes(forward) <= 2**20 + 6 * row * tokens
        upstream = torch.ones(1, tokens, HEADS, WIDTH)
        assert peak_bytes(lambda: torch.autograd.grad(forward(), inputs, upstream)) <= 2**20 + 12 * row * tokens  # noqa: B023
