"""The layout's forms agree: stretch by stretch, and as the plan for one call over stretches of different lengths."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from studio.engine.orpo import attention
from studio.engine.orpo.attention import Layout
from studio.engine.orpo.packing import Branch
from tests.tiny_models import tiny_model

BRANCHES = (Branch(0, 7, 3, 4), Branch(11, 5, 5, 2), Branch(18, 4, 2, 0))
TOKENS = 22


class Layer(torch.nn.Module):
    is_causal = True


def drawn(heads=4, kept=2, width=8):
    torch.manual_seed(0)
    return (torch.randn(1, heads, TOKENS, width, requires_grad=True), *(torch.randn(1, kept, TOKENS, width, requires_grad=True) for _ in range(2)))


def seen_by_token(branches, tokens, window=None):
    """One mask over the whole row, (tokens, tokens), written out token by token."""
    allowed = torch.zeros(tokens, tokens, dtype=torch.bool)
    for one in branches:
        trunk = list(range(one.start, one.start + one.trunk))
        branch = list(range(one.start + one.trunk, one.start + one.trunk + one.branch))
        for text in (trunk, trunk[: one.shared] + branch):
            for at, place in enumerate(text):
                for before in text[max(0, at - (window or tokens) + 1) : at + 1]:
                    allowed[place, before] = True
    return allowed


def by_mask(query, key, value, window=None):
    """The same attention from one mask over the whole row."""
    allowed = seen_by_token(BRANCHES, TOKENS, window)
    return scaled_dot_product_attention(query, key.repeat_interleave(2, 1), value.repeat_interleave(2, 1), attn_mask=allowed).transpose(1, 2)


@pytest.mark.parametrize("window", [None, 2, 5, 100])
def test_every_token_sees_its_own_text_and_nothing_else(window):
    query, key, value = drawn()
    out, _ = attention.branch_attention(Layer(), query, key, value, None, layout=Layout(BRANCHES, torch.device("cpu")), sliding_window=window)
    assert torch.allclose(out, by_mask(query, key, value, window), atol=1e-6)


@pytest.mark.parametrize("groups", [True, False], ids=["torch 2.13", "torch 2.11"])
@pytest.mark.parametrize("window", [None, 3])
def test_the_plan_for_one_call_gives_the_same(monkeypatch, window, groups):
    """The kernel runs on CUDA only; a stand-in of a few lines reads the same plan, aligned to the last queries as it is there."""
    def kernel(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1)):
        assert query.shape[1] == key.shape[1] == value.shape[1]
        parts = []
        for at in range(len(cu_seq_q) - 1):
            q, k, v = (side[starts[at] : starts[at + 1]].transpose(0, 1) for side, starts in (
                (query, cu_seq_q), (key, cu_seq_k), (value, cu_seq_k)))
            assert q.shape[1] <= max_q and k.shape[1] <= max_k
            behind = torch.arange(k.shape[1] - q.shape[1], k.shape[1])[:, None] - torch.arange(k.shape[1])
            allowed = (behind >= 0) & ((behind <= window_size[0]) if window_size[0] >= 0 else True)
            parts.append(scaled_dot_product_attention(q, k, v, attn_mask=allowed, scale=scale).transpose(0, 1))
        return torch.cat(parts)

    def grouping(query, key, value, *plan, scale=None, window_size=(-1, -1), enable_gqa=False):
        assert enable_gqa and query.shape[1] == 2 * key.shape[1]
        return kernel(query, *(side.repeat_interleave(2, 1) for side in (key, value)), *plan, scale=scale, window_size=window_size)

    monkeypatch.setattr(attention, "varlen_attn", grouping if groups else kernel)
    query, key, value = drawn()
    out = attention._one_call(query, key, value, Layout(BRANCHES, torch.device("cpu")), None, window)
    assert torch.allclose(out, by_mask(query, key, value, window), atol=1e-6)
    gradients = torch.autograd.grad(out.square().sum(), (query, key, value))
    expected = torch.autograd.grad(by_mask(query, key, value, window).square().sum(), (query, key, value))
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(gradients, expected, strict=True))


def test_attention_is_the_model_s_own_again_afterwards():
    from tests.tiny_models import tiny_model

    model = tiny_model("gemma2", query_pre_attn_scalar=16)
    before = model.config._attn_implementation
    with attention.branching(model):
        assert model.config._attn_implementation == attention.NAME
        with attention.branching(model):
            pass
        assert model.config._attn_implementation == attention.NAME
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("family", ["gemma2", "gpt_oss", "llama"])
def test_a_model_with_a_softcap_or_sinks_writes_the_same_while_it_attends_over_branches(family):
    """As the samples of a run are written: layouts are for scoring only, and torch's fused attention knows neither."""
    options = {"sliding_window": 4, "query_pre_attn_scalar": 16, "attn_logit_softcapping": 0.5} if family == "gemma2" else {}
    causal = tiny_model(family, **options, **({"sliding_window": 4} if family == "gpt_oss" else {}))
    for name, weight in causal.named_parameters():
        if name.endswith("sinks") or name.endswith(("q_proj.weight", "k_proj.weight")):
            torch.nn.init.normal_(weight, std=1.0)
    ids = torch.randint(3, 90, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, :3] = 0

    def written():
        with torch.no_grad():
            return causal.generate(input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=6, min_new_tokens=6, pad_token_id=0,
                                   return_dict_in_generate=True, output_logits=True)

    own = written()
    with attention.branching(causal):
        ours = written()
    assert torch.equal(own.sequences, ours.sequences)
    assert torch.allclose(torch.stack(own.logits), torch.stack(ours.logits), atol=1e-5)
