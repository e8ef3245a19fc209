"""The engine's own layers give what PEFT's and the model's give, keep less for the way back, and are gone afterwards."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from studio.engine.orpo import copies, joint, layers, lora, packing
from studio.engine.orpo.anew import source_of
from studio.engine.orpo.forwards import replaced
from studio.engine.orpo.scoring import Scorer
from tests import families
from tests.tiny_models import tiny_model

ROWS = (1, 9, 64)


def with_lora(family="llama", dropout=0.0, **options):
    model = get_peft_model(tiny_model(family, **options).requires_grad_(False),
                           LoraConfig(r=4, lora_alpha=12, lora_dropout=dropout, target_modules="all-linear"))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.1)
    return model.train()


def said(model, module, inputs):
    """Output of a module, and the gradients of its input and of all trained weights that it reached."""
    x = inputs.clone().requires_grad_()
    output = module(x)
    output.square().sum().backward()
    learned = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
    model.zero_grad()
    return [output.detach(), x.grad, *learned]


def assert_close(one, other, tolerance=1e-5):
    assert len(one) == len(other)
    for mine, theirs in zip(one, other, strict=True):
        assert (mine - theirs).float().norm() <= tolerance * theirs.float().norm()


def kept_bytes(module, inputs, call=None):
    """What autograd keeps of a call of a module or of parts of it, each memory once, without the module's own weights."""
    own, found = {weight.untyped_storage().data_ptr() for weight in module.parameters()}, {}
    x = inputs.clone().requires_grad_() * 1

    def count(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        output = (call or module)(x)
    assert output.requires_grad
    return sum(found.values())


# --- adapters ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quantized", [False, True], ids=["plain", "4 bits"])
@pytest.mark.parametrize("part", ["self_attn", "mlp"])
def test_layers_of_one_input_give_what_each_gives_alone(part, quantized):
    model = with_lora("qwen2")  # whose queries, keys and values have a bias
    if quantized:
        families.quantize(model)
    module = getattr(model.get_base_model().model.layers[0], part)
    layers_of = [getattr(module, name) for names in joint.SAME_INPUT for name in names if hasattr(module, name)]

    def together(x):
        return torch.cat([layer(x) for layer in layers_of], -1)

    rows = torch.randn(ROWS, generator=torch.Generator().manual_seed(1))
    theirs = said(model, together, rows)
    with replaced(joint.fused(model)):
        assert isinstance(layers_of[0].forward.func.__self__, joint._Siblings)
        mine = said(model, together, rows)
    assert len(mine) == 2 + 2 * len(layers_of)
    assert_close(mine, theirs)


def test_siblings_that_are_handed_different_inputs_are_computed_apart_from_then_on():
    model = with_lora()
    mlp = model.get_base_model().model.layers[0].mlp
    one, other = torch.randn(2, *ROWS, generator=torch.Generator().manual_seed(1))
    theirs = [mlp.gate_proj(one), mlp.up_proj(other)]
    with replaced(joint.fused(model)):
        for _ in range(2):
            assert_close([mlp.gate_proj(one), mlp.up_proj(other)], theirs)
        siblings = mlp.gate_proj.forward.func.__self__
        assert siblings.apart
        assert_close([mlp.up_proj(one), mlp.gate_proj(other)], [lora.alone(mlp.up_proj, one), lora.alone(mlp.gate_proj, other)])


def test_layers_of_one_input_drop_the_same_of_it_and_keep_a_byte_for_each_number(monkeypatch):
    """As PEFT's own layers give it, if their dropout drops the same."""
    model = with_lora(dropout=0.5)
    mlp = model.get_base_model().model.layers[0].mlp
    rows = torch.randn(ROWS, generator=torch.Generator().manual_seed(1))
    stays = torch.rand(ROWS, generator=torch.Generator().manual_seed(2)) > 0.5

    def together(x):
        return torch.cat([layer(x) for layer in (mlp.gate_proj, mlp.up_proj)], -1)

    monkeypatch.setattr(nn.Dropout, "forward", lambda self, x: x * stays * 2)
    theirs = said(model, together, rows)
    monkeypatch.undo()
    kept = kept_bytes(mlp, rows, together)
    monkeypatch.setattr(torch, "native_dropout", lambda x, share, train: (x * stays.view(x.shape) * 2, stays.view(x.shape)))
    with replaced(joint.fused(model)):
        assert_close(said(model, together, rows), theirs)
    monkeypatch.undo()
    with replaced(joint.fused(model)):
        assert kept_bytes(mlp, rows, together) < 0.6 * kept


@pytest.mark.parametrize("name", ["o_proj", "q_proj"])
def test_what_is_dropped_is_dropped_at_random_and_the_rest_grows(name):
    """Over many rows the mean is that of no dropout; the share is the adapter's; nothing is dropped in eval mode."""
    model = with_lora(dropout=0.25)
    layer = getattr(model.get_base_model().model.layers[0].self_attn, name)
    row = torch.randn(1, 1, 64, generator=torch.Generator().manual_seed(1))
    with replaced(joint.fused(model)):
        many = layer(row.expand(1, 20_000, 64))[0]
        model.eval()
        exact = layer(row)[0, 0]
    assert not torch.equal(many[0], many[1])
    noise = many.std(0) / len(many) ** 0.5
    assert ((many.mean(0) - exact).abs() < 5 * noise + 1e-4).all()


def test_a_layer_alone_gets_the_gradient_of_what_was_dropped():
    model = with_lora(dropout=0.5)
    layer = model.get_base_model().model.layers[0].mlp.down_proj
    x = torch.randn(3, 128, generator=torch.Generator().manual_seed(1), requires_grad=True)
    narrow = layer.lora_A["default"].weight
    torch.manual_seed(0)
    through, inner = lora._Narrowed.apply(x, *source_of(x, x), narrow, 0.5)
    torch.manual_seed(0)
    dropped, stays = torch.native_dropout(x.detach(), 0.5, True)
    given, slope = torch.autograd.grad(3 * through.sum() + inner.sum(), (x, narrow))
    assert torch.equal(through, x) and torch.allclose(inner, dropped @ narrow.t())
    assert torch.allclose(slope, dropped.sum(0).expand_as(slope), atol=1e-5)
    assert torch.allclose(given, 3 + narrow.sum(0) * stays * 2, atol=1e-6)


def test_a_layer_alone_wants_no_gradient_of_an_input_that_wants_none():
    model = with_lora()
    layer = model.get_base_model().model.layers[0].self_attn.o_proj
    with replaced(joint.fused(model)):
        x = torch.randn(3, 64)
        given, _ = lora._Narrowed.apply(x, *source_of(x, x), layer.lora_A["default"].weight, 0.0)
        layer(x).sum().backward()
    assert not given.requires_grad and layer.lora_B["default"].weight.grad is not None


def test_an_adapter_that_is_switched_off_is_off():
    model = with_lora()
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    rows = torch.randn(ROWS)
    with replaced(joint.fused(model)), model.disable_adapter():
        assert torch.equal(layer(rows), layer.base_layer(rows))


@pytest.mark.parametrize("family", ["llama", "phi3", "olmo2"])
def test_adapters_keep_no_norm_s_output_but_what_the_norm_keeps_anyway(family):
    """One layer's norm and the layers that read it: with the norm's own code they keep its output besides its input."""
    model = with_lora(family, 0.0)
    block = model.get_base_model().model.layers[0]
    norm = getattr(block, "input_layernorm", nn.Identity())
    attention = block.self_attn
    readers = [attention.qkv_proj] if family == "phi3" else [attention.q_proj, attention.k_proj, attention.v_proj]

    def read(x):
        normed = norm(x)
        return torch.cat([layer(normed) for layer in readers], -1)

    rows = torch.randn(1, 40, 64, generator=torch.Generator().manual_seed(1))
    theirs = said(model, read, rows)
    fused, lean = joint.fused(model), layers.lean(model.get_base_model())
    with replaced(fused):
        before = kept_bytes(model, rows, read)
    with replaced(fused | lean):
        assert_close(said(model, read, rows), theirs)
        spared = before - kept_bytes(model, rows, read)
    if family == "olmo2":  # which norms what comes out of attention
        assert spared == 0
    else:
        assert spared >= 0.9 * rows.numel() * 4


# --- norms and gated products -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("family", ["llama", "gemma3_text", "phi3", "glm4", "qwen3"])
def test_norms_and_gated_products_give_what_the_model_s_own_give_and_keep_less(family, precision, tolerance):
    model = tiny_model(family, **({"query_pre_attn_scalar": 16} if "gemma" in family else {})).to(precision).requires_grad_(False)
    for name, weight in model.named_parameters():
        if "norm" in name:
            nn.init.normal_(weight, mean=0.5, std=0.1)
    lean = layers.lean(model)
    layer = model.model.layers[0]
    assert layer.mlp in lean and layer.input_layernorm in lean and model.model.norm in lean
    rows = torch.randn(1, 64, 64, generator=torch.Generator().manual_seed(1)).to(precision)
    for module in (layer.mlp, layer.input_layernorm):
        own, kept = said(model, module, rows), kept_bytes(module, rows)
        with replaced({module: lean[module]}):
            assert_close(said(model, module, rows), own, tolerance)
            less = kept_bytes(module, rows)
        assert less < 0.8 * kept or (module is layer.input_layernorm and precision is torch.float32 and less <= kept)


@pytest.mark.parametrize("quantized", [False, True], ids=["plain", "4 bits"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("family", ["llama", "gemma3_text", "phi3"])
def test_a_gated_product_is_made_anew_for_the_adapter_that_follows(family, dropout, quantized, monkeypatch):
    """As by PEFT's own layer, if the same is dropped of the same product; and the product is not kept."""
    model = with_lora(family, dropout, **({"query_pre_attn_scalar": 16} if "gemma" in family else {}))
    if quantized:
        families.quantize(model)
    mlp = model.get_base_model().model.layers[0].mlp
    fused, lean = joint.fused(model), layers.lean(model.get_base_model())
    rows = torch.randn(1, 40, 64, generator=torch.Generator().manual_seed(1))
    stays = torch.rand(40, 1, generator=torch.Generator().manual_seed(2)) > 0.5
    monkeypatch.setattr(nn.Dropout, "forward", lambda self, x: x * stays * 2 if dropout else x)
    theirs, kept = said(model, mlp, rows), kept_bytes(mlp, rows)
    monkeypatch.setattr(torch, "native_dropout", lambda x, share, train: (x * stays * 2, stays))
    with replaced(fused):
        before = kept_bytes(mlp, rows)
    with replaced(fused | {mlp: lean[mlp]}):
        assert_close(said(model, mlp, rows), theirs)
        product = rows.shape[1] * 128 * 4
        assert kept_bytes(mlp, rows) <= before - 2 * product < kept


def test_an_adapter_that_is_switched_off_behind_a_gated_product_is_off():
    model = with_lora()
    mlp = model.get_base_model().model.layers[0].mlp
    rows = torch.randn(ROWS)
    with model.disable_adapter():
        theirs = mlp(rows)
        with replaced(joint.fused(model) | layers.lean(model.get_base_model())):
            assert torch.allclose(mlp(rows), theirs, atol=1e-6)


class OddRMSNorm(nn.Module):
    """Goes by the name, and does something else."""

    def __init__(self):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(64), requires_grad=False), 1e-6

    def forward(self, x):
        return x / x.abs().amax(-1, keepdim=True) * self.weight


def test_what_does_something_else_under_the_same_name_is_left_as_it_is():
    model = tiny_model("llama").requires_grad_(False)
    model.model.norm = OddRMSNorm()
    sparse = model.model.layers[0].mlp
    sparse.forward = lambda x: sparse.down_proj(torch.relu(sparse.act_fn(sparse.gate_proj(x))) * sparse.up_proj(x))
    lean = layers.lean(model)
    assert model.model.norm not in lean and sparse not in lean and model.model.layers[1].mlp in lean


def test_a_norm_that_learns_is_left_as_it_is():
    model = tiny_model("llama").requires_grad_(False)
    model.model.norm.weight.requires_grad_(True)
    assert model.model.norm not in layers.lean(model)


# --- for a while ------------------------------------------------------------------------------------------------------


def test_a_model_computes_by_its_own_code_again_afterwards():
    model = with_lora()
    before = {name: copy.copy(vars(module).get("forward")) for name, module in model.named_modules()}
    scorer = Scorer(model, filler=0).choose(families.pairs())
    assert scorer.packed
    with scorer.attending():
        with scorer.attending():
            scorer.score(scorer.batch(packing.weigh(families.pairs(), 4)))
        assert "forward" in vars(model.get_base_model().model.norm)
    assert {name: vars(module).get("forward") for name, module in model.named_modules()} == before


# --- copies in 16 bits ------------------------------------------------------------------------------------------------


def adapters_of(model):
    return [weight for name, weight in model.named_parameters() if "lora_" in name]


def test_copies_of_an_adapter_are_its_weights_in_16_bits_and_those_of_one_input_are_one_matrix():
    model = with_lora()
    joint.fused(model)
    mlp = model.get_base_model().model.layers[0].mlp
    together = [lora.narrow_of(layer) for layer in (mlp.gate_proj, mlp.up_proj)]
    assert all(torch.equal(copies.in_type(weight, torch.bfloat16), weight.bfloat16()) for weight in adapters_of(model))
    assert torch.equal(copies.joined(together, torch.bfloat16), torch.cat(together).bfloat16())
    assert copies.joined(together, torch.bfloat16).data_ptr() == copies.in_type(together[0], torch.bfloat16).data_ptr()
    assert copies.in_type(together[0], torch.float32).data_ptr() == together[0].data_ptr()


def test_copies_of_an_adapter_that_were_made_in_inference_mode_are_renewed_outside_it():
    model = families.with_adapter("llama")
    joint.fused(model)
    weight = next(iter(adapters_of(model)))
    with torch.inference_mode():
        copies.in_type(weight, torch.bfloat16)
    with torch.no_grad():
        weight.add_(1)
    assert torch.equal(copies.in_type(weight, torch.bfloat16), weight.bfloat16())


def test_copies_of_an_adapter_are_renewed_when_one_of_its_weights_has_changed():
    model = with_lora()
    joint.fused(model)
    [first, *_, last] = adapters_of(model)
    before = copies.in_type(last, torch.bfloat16).clone()
    with torch.no_grad():
        last.add_(1)
    assert torch.equal(copies.in_type(first, torch.bfloat16), first.bfloat16())
    assert torch.equal(copies.in_type(last, torch.bfloat16), last.bfloat16()) and not torch.equal(last.bfloat16(), before)
