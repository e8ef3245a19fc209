"""One step of the engine as a card would take it, without a card: every kernel, its bytes and operations, and a guess at its time.

    python -m tests.card.trace 8b|3b|1b bf16|nf4 kernels|packed|padded|trl PROMPT,CHOSEN,REJECTED PAIRS [RECOMPUTED: 0|1]

`packed` and `padded` compute in torch's operators, `kernels` is packed with the engine's own in their place.

Tensors are fake and say that they are on a card, so that the engine takes its CUDA paths (varlen attention, fused norms, products into
float32, NF4 layers): nothing is computed. What needs numbers is put in by hand below. Needs the CPU build of torch 2.13 and the project's
packages. Times are a roofline's: products at 86 % of 790 TFLOP/s or 85 % of 3 TB/s, all else at 80 % of it, at least 2.5 us each.
"""

import collections
import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import peft.tuners.tuners_utils as tuners
import torch
from peft import LoraConfig, get_peft_model
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from transformers import LlamaConfig, LlamaForCausalLM

from studio.engine.orpo import attention, layers, memory, packing, rotary
from studio.engine.orpo import head as engine_head
from studio.engine.orpo.arithmetic import PLAIN, Arithmetic, Gated
from studio.engine.orpo.scoring import Scorer
from studio.engine.tokens import Encoded
from tests.card.models import SHAPES, VOCABULARY

RATE, BYTES = 790e12, 3.0e12
NO_KERNEL = {"view", "_unsafe_view", "t", "transpose", "permute", "slice", "select", "split", "split_with_sizes", "unsqueeze", "squeeze", "expand",
             "detach", "alias", "as_strided", "reshape", "unbind", "chunk", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided",
             "lift_fresh", "is_same_size", "_reshape_alias", "narrow", "diagonal", "device"}

LAUNCHES = {"gemm_4bit": 4}
"""An operator that is several kernels: two for the constants of a weight, one that unpacks it, one product."""

# --- what fake tensors cannot do, or would do as on a CPU -----------------------------------------------------------

FakeTensor.is_cuda = property(lambda self: True)
tuners.BaseTunerLayer._move_adapter_to_device_of_base_layer = lambda self, *_, **__: None
torch.nn.Module.to = lambda self, *_, **__: self
packing.sent = lambda tensor, device: tensor
attention._takes_varlen = lambda query, value: True
layers._is_same = lambda module, forward: True
for table in (engine_head.TILE_ROWS, engine_head.TILE_BYTES):
    table["cpu"] = table["cuda"]
engine_head.Head._frozen = lambda self: engine_head.Frozen(self.causal.get_output_embeddings().weight, None, 1.0, None)
rotary.is_same = lambda own, ours, device: True
library = torch.library.Library("traced", "DEF")


def _stands_for(name: str, schema: str, meta) -> Callable:
    """An operator of one kernel that computes nothing."""
    library.define(f"{name}{schema}")
    torch.library.impl(library, name, "Meta")(meta)
    return getattr(torch.ops.traced, name)


rms_norm = _stands_for("rms_norm", "(Tensor x, Tensor w) -> Tensor", lambda x, w: torch.empty_like(x))
rms_norm_back = _stands_for("rms_norm_back", "(Tensor g, Tensor x, Tensor w) -> Tensor", lambda g, x, w: torch.empty_like(x))
gated = _stands_for("gated", "(Tensor gate, Tensor up) -> Tensor", lambda gate, up: torch.empty_like(gate))
gated_back = _stands_for("gated_back", "(Tensor g, Tensor gate, Tensor up) -> (Tensor, Tensor, Tensor)",
                         lambda g, gate, up: tuple(torch.empty_like(gate) for _ in range(3)))
rotated = _stands_for("rotated", "(Tensor x, Tensor cos, Tensor sin) -> Tensor",
                      lambda x, cos, sin: torch.empty_like(x.transpose(1, 2), memory_format=torch.contiguous_format).transpose(1, 2))
numerators = _stands_for("numerators", "(Tensor products, Tensor targets, Tensor highest, Tensor like) -> Tensor",
                         lambda products, targets, highest, like: torch.empty_like(products, dtype=like.dtype))
sum_within = _stands_for("addmm_", "(Tensor(a!) total, Tensor left, Tensor right) -> Tensor(a!)", lambda total, left, right: total)

unpacked = _stands_for("unpacked", "(Tensor packed, Tensor constants, int rows, int columns) -> Tensor",
                       lambda packed, constants, rows, columns: torch.empty(rows, columns, dtype=torch.bfloat16, device=packed.device))


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return rms_norm(x, w)

    @staticmethod
    def backward(ctx, g):
        return rms_norm_back(g, *ctx.saved_tensors), None


class _Rotated(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, cos, sin):
        ctx.save_for_backward(cos, sin)
        return rotated(x, cos, sin)

    @staticmethod
    def backward(ctx, g):
        return rotated(g, *ctx.saved_tensors), None, None


# Torch's own kernels, and ours in their place.
TORCH = replace(PLAIN, norm=lambda scale, eps, x: _Norm.apply(x, scale))
OURS = Arithmetic(Gated(lambda gate, up, kind: gated(gate, up), lambda g, gate, up, kind, again: gated_back(g, gate, up)), TORCH.norm,
                  lambda q, k, cos, sin: (_Rotated.apply(q, cos, sin), _Rotated.apply(k, cos, sin)),
                  lambda tile: numerators(tile.products, tile.targets, tile.sums.highest, tile.head.weight[:1]),
                  lambda total, left, right: sum_within(total, left, right),
                  lambda base: unpacked(base.weight, base.weight.quant_state.absmax, *base.weight.quant_state.shape))


def _plan(self):
    widths = [(queries, sum(self.parts[part] for part in keys)) for queries, keys in self.stretches]
    starts = torch.empty(len(widths) + 1, dtype=torch.int32)
    return {"keys": torch.empty(sum(keys for _, keys in widths), dtype=torch.int64), "cu_seq_q": starts, "cu_seq_k": starts,
            "max_q": max(queries for queries, _ in widths), "max_k": max(keys for _, keys in widths)}


attention.Layout.varlen = property(_plan)


# --- counting ---------------------------------------------------------------------------------------------------------


class Counter(TorchDispatchMode):
    """Each kernel as (phase, name, operations, bytes, shapes); what would make the host wait in `waits`."""

    def __init__(self):
        super().__init__()
        self.rows, self.waits, self.phase = [], [], "forward"

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1]
        given = list({id(x): x for x in tree_flatten((args, kwargs or {}))[0] if isinstance(x, torch.Tensor)}.values())
        made = [x for x in tree_flatten(out)[0] if isinstance(x, torch.Tensor)]
        if name in ("_local_scalar_dense", "nonzero"):
            self.waits.append(name)
        if name in NO_KERNEL or not given + made:
            return out
        size = lambda tensors: sum(x.numel() * x.element_size() for x in tensors)  # noqa: E731
        moved = size(given) + (size(given[:1]) if name.endswith("_") else size(x for x in made if not any(x is y for y in given)))
        if name in ("index_select", "embedding", "gather", "index"):
            moved = 2 * size(made)
        work = 0
        if name == "mm":
            work = 2 * given[0].shape[0] * given[0].shape[1] * given[1].shape[1]
        elif name in ("addmm", "addmm_"):
            work = 2 * given[1].shape[0] * given[1].shape[1] * given[2].shape[1]
        elif name == "gemm_4bit":
            work = 2 * args[0].numel() * args[2][0]
        self.rows.append((self.phase, name, work, moved, [tuple(x.shape) for x in given[:3]]))
        return out


def seconds(row) -> float:
    _, name, work, moved, shapes = row
    if name == "gemm_4bit":  # two small kernels for the constants, one that unpacks the weight, one product
        rows, inputs = math.prod(shapes[0][:-1]), shapes[0][-1]
        outputs = work / 2 / rows / inputs
        return inputs * outputs * 2.516 / (0.7 * BYTES) + max(work / (0.86 * RATE), 2 * (rows * inputs + inputs * outputs + rows * outputs) / (0.85 * BYTES)) + 8e-6
    if name in ("dequantize_4bit", "unpacked"):
        return moved / (0.7 * BYTES) + 3e-6
    if name.startswith(("mm", "addmm", "bmm")):
        return max(work / (0.86 * RATE), moved / (0.85 * BYTES), 2.5e-6)
    return max(moved / (0.8 * BYTES), 2.5e-6)


def launches(row) -> int:
    return LAUNCHES.get(row[1], 1)


def kind(row) -> str:
    _, name, work, _, shapes = row
    if name.startswith(("mm", "addmm", "bmm", "gemm")):
        thin = min((min(shape) for shape in shapes if shape), default=0) <= 64
        return "LoRA's products" if thin and name != "gemm_4bit" else "products"
    return "attention" if "varlen" in name or "scaled_dot" in name else "unpacking 4 bits" if "dequantize" in name or name == "unpacked" else "the rest"


# --- models and steps -------------------------------------------------------------------------------------------------


def model_of(shape: str, base: str):
    torch.set_default_dtype(torch.bfloat16)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=8192, attn_implementation="sdpa", **SHAPES[shape]))
    torch.set_default_dtype(torch.float32)
    if base == "nf4":
        _quantize(model)
    return get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")).train()


def _quantize(model) -> None:
    import bitsandbytes as bnb
    import bitsandbytes.nn.modules as modules
    from bitsandbytes.functional import QuantState

    modules.fix_4bit_weight_quant_state_from_module = lambda module: None
    for owner in list(model.modules()):
        for name, layer in list(owner.named_children()):
            if not isinstance(layer, torch.nn.Linear) or name == "lm_head":
                continue
            count = layer.weight.numel()
            small = bnb.nn.Linear4bit.__new__(bnb.nn.Linear4bit)
            torch.nn.Module.__init__(small)
            small.in_features, small.out_features, small.bias, small.quant_storage = layer.in_features, layer.out_features, None, torch.uint8
            small.compute_dtype, small.compute_type_is_set, small.support_avx512bf16_for_cpu = torch.bfloat16, True, False
            second = QuantState(absmax=torch.empty(-(-count // 64 // 256)), blocksize=256, code=torch.empty(256), dtype=torch.float32)
            state = QuantState(absmax=torch.empty(count // 64, dtype=torch.uint8), shape=layer.weight.shape, dtype=torch.bfloat16, blocksize=64,
                               code=torch.empty(16), quant_type="nf4", offset=torch.empty(()), state2=second)
            small.weight = torch.nn.Parameter(torch.empty((count + 1) // 2, 1, dtype=torch.uint8), requires_grad=False)
            small.weight.quant_state = small.quant_state = state
            small.weight.compress_statistics, small.weight.quant_type, small.weight.blocksize = True, "nf4", 64
            small.weight.quant_storage = torch.uint8
            setattr(owner, name, small)
    model.is_loaded_in_4bit = True


def pairs_of(lengths: tuple[int, ...], count: int) -> list[Encoded]:
    rng, found = np.random.default_rng(0), []
    for _ in range(count):
        prompt, chosen, rejected = (rng.integers(3, VOCABULARY, size) for size in lengths)
        rejected[0] = chosen[0] + 1
        found.append(Encoded(len(prompt), np.concatenate([prompt, chosen]), np.concatenate([prompt, rejected])))
    return found


def ours(model, pairs, counter: Counter, who: str, recomputed: bool) -> None:
    scorer = Scorer(model, filler=0, arithmetic=OURS if who == "kernels" else TORCH)
    scorer.packed = who != "padded"
    if recomputed:
        memory.recompute(model.get_base_model(), model.config.num_hidden_layers)
    scorer.computing = lambda: torch.autocast("cpu", torch.bfloat16)
    with scorer.attending():
        for batch in scorer.batches(packing.weigh(pairs, len(pairs)), 16384):
            with counter:
                counter.phase = "forward"
                scores, _ = scorer.score(batch)
                loss = scores.loss(0.1, batch.shares)
                counter.phase = "backward"
                loss.backward()


def kept(shape: str, capability: tuple[int, int] = (9, 0)) -> float:
    """Bytes that one token saves in one layer of such a Llama in 16 bits for the backward pass."""
    sizes, held = {}, []

    def count(tensor: torch.Tensor) -> torch.Tensor:
        held.append(tensor)
        if (storage := tensor.untyped_storage())._cdata not in own:
            sizes[storage._cdata] = storage.nbytes()
        return tensor

    attention._takes_varlen = lambda query, value: capability >= (8, 0)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model, pairs = model_of(shape, "none"), pairs_of((200, 300, 300), 1)
        own = {weight.untyped_storage()._cdata for weight in model.parameters()}
        scorer = Scorer(model, filler=0, arithmetic=TORCH)
        scorer.packed, scorer.computing = True, lambda: torch.autocast("cpu", torch.bfloat16)
        batch = scorer.batch(packing.weigh(pairs, 1))
        with scorer.attending(), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            scorer.score(batch)
    return sum(sizes.values()) / batch.ids.numel() / model.config.num_hidden_layers


def trl(model, pairs, counter: Counter, recomputed: bool) -> None:
    """TRL's padded rows and its loss written out, logits in float32 as accelerate hands them over; its eleven waits are not shown."""
    batch = packing.pad([packing.Weighted(pair, 1.0, 1.0) for pair in pairs], 0)
    ids, causal, count = torch.cat([batch.ids[0::2], batch.ids[1::2]]), model.get_base_model(), len(pairs)
    if recomputed:
        causal.gradient_checkpointing_enable({"use_reentrant": False})
    with counter:
        with torch.autocast("cpu", torch.bfloat16):
            logits = causal.lm_head(causal.base_model(input_ids=ids, use_cache=False).last_hidden_state)
        logits = logits.float()
        nll = torch.nn.functional.cross_entropy(logits[:count, :-1].contiguous().view(-1, VOCABULARY), ids[:count, 1:].reshape(-1))
        rows = logits[:, :-1]
        logps = (rows.gather(-1, ids[:, 1:, None])[..., 0] - torch.stack([row.logsumexp(-1) for row in rows])).mean(-1)
        chosen, rejected = logps[:count], logps[count:]
        loss = nll - 0.1 * torch.nn.functional.logsigmoid(chosen - rejected).mean()
        for half in (logits[:count], logits[count:]):
            half.detach().mean()
        counter.phase = "backward"
        loss.backward()


def main(shape: str, base: str, who: str, lengths: str, count: str, recomputed: str = "0") -> None:
    counter, began = Counter(), time.time()
    with FakeTensorMode(allow_non_fake_inputs=True):
        model, pairs = model_of(shape, base), pairs_of(tuple(map(int, lengths.split(","))), int(count))
        if who == "trl":
            trl(model, pairs, counter, recomputed == "1")
        else:
            ours(model, pairs, counter, who, recomputed == "1")
    sums = collections.defaultdict(lambda: [0, 0.0, 0.0, 0.0])
    chains = collections.Counter()
    for row in counter.rows:
        one = sums[row[0], kind(row)]
        one[0], one[1], one[2], one[3] = one[0] + launches(row), one[1] + seconds(row), one[2] + row[2], one[3] + row[3]
        chains[row[0], row[1], str(row[4][:1])] += seconds(row)
    for (phase, what), (times, taken, work, moved) in sorted(sums.items()):
        print(f"{phase:9} {what:18} {times:6} kernels {taken * 1e3:8.2f} ms {work / 1e12:8.2f} TFLOP {moved / 1e9:8.1f} GB")
    whole, work = sum(one[1] for one in sums.values()), sum(one[2] for one in sums.values())
    moved = sum(one[3] for one in sums.values())
    print(f"{sum(map(launches, counter.rows))} kernels, {moved / 1e9:.1f} GB, {whole * 1e3:.0f} ms, {work / whole / 1e12:.0f} TFLOP/s; the host waits: {counter.waits or 'never'}; "
          f"traced in {time.time() - began:.0f} s")
    for (phase, name, first), taken in chains.most_common(12):
        print(f"  {taken * 1e3:7.2f} ms  {phase} {name} {first}")


if __name__ == "__main__":
    main(*sys.argv[1:])
