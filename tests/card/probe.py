"""The card, its two ceilings, and each thing that computes otherwise on it, against float32 or float64."""

import json
import math
import sys
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import torch

from studio.engine.orpo import attention, resuming, trial
from studio.engine.orpo.arithmetic import PLAIN, add_product, norm, product
from studio.engine.orpo.frozen import weight_of
from studio.engine.orpo.packing import Branch
from studio.engine.orpo.relief import Draws
from tests.card.findings import apart, timed, wait
from tests.card.models import model_of


def probe(asked, say, device) -> None:
    """The card, its two ceilings, and each thing that computes otherwise on it, against float32 or float64."""
    versions = {}
    for name in ("torch", "triton", "transformers", "accelerate", "peft", "trl", "bitsandbytes", "huggingface_hub", "liger_kernel", "datasets"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    cuda = device.type == "cuda"
    say("machine", versions=versions, python=sys.version.split()[0],
        **({"card": torch.cuda.get_device_name(), "capability": torch.cuda.get_device_capability(),
            "memory": torch.cuda.mem_get_info(), "cuda": torch.version.cuda} if cuda else {}))
    ceilings(say, device)
    with say.tried("product into float32") as found:
        x, w = (torch.randn(64, 128, device=device, dtype=torch.bfloat16) for _ in range(2))
        out, total = torch.empty(64, 64, device=device), torch.zeros(64, 64, device=device)
        product(x, w.t(), out=out)
        found["off"] = apart(out, x.double().cpu() @ w.double().cpu().t())
        add_product(total, x, w.t().contiguous())
        found["off, added"] = apart(total, x.double().cpu() @ w.double().cpu().t())
        if cuda:
            torch.addmm(total, x, w.t(), out_dtype=torch.float32, out=total)
            found["addmm with out_dtype works"] = apart(total, 2 * (x.double().cpu() @ w.double().cpu().t()))
    if cuda:
        for kind in (torch.bfloat16, torch.float16):
            for window in (None, 7):
                with say.tried("one call over unequal lengths", kind=str(kind), window=window) as found:
                    found |= varlen(device, kind, window)
    with say.tried("norm") as found:
        x, w = torch.randn(64, 512, device=device, dtype=torch.bfloat16), torch.rand(512, device=device, dtype=torch.bfloat16)
        exact = x.double().cpu() * (x.double().cpu().square().mean(-1, keepdim=True) + 1e-5).rsqrt() * w.double().cpu()
        found["off"] = apart(norm(w, 1e-5, x), exact)
    with say.tried("4 bits: forward and the engine's backward pass use one weight") as found:
        import bitsandbytes as bnb
        for wide, rows in ((256, 8), (256, 700), (1024, 2000)):
            layer = bnb.nn.Linear4bit(wide, 512, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4")
            layer.weight = bnb.nn.Params4bit(torch.randn(512, wide), requires_grad=False, compress_statistics=True, quant_type="nf4")
            layer = layer.to(device)
            x = torch.randn(rows, wide, device=device, dtype=torch.bfloat16)
            found[f"off, {rows} rows"] = apart(layer(x), x.float() @ weight_of(layer, torch.bfloat16, PLAIN.unpack).float().t())
    with say.tried("our kernels against torch's operators, at 8B sizes") as found:
        if cuda:
            causal = model_of("8b", "none", device, torch.bfloat16, 32_000, layers=1).get_base_model()
            for one in trial.outcomes(causal, torch.bfloat16):
                found[one.part] = {"times as fast": round(one.speed, 2), "why not used": one.why_not}
    with say.tried("8-bit paged AdamW: the step after a resumed checkpoint is the step without") as found:
        if cuda:
            found |= resumed_optimizer(device)
    with say.tried("dropout on the card: the same numbers again after put_generators") as found:
        if cuda:
            draws = Draws()
            one = torch.native_dropout(torch.ones(1000, device=device), 0.5, True)[1]
            draws.again()
            found["same"] = bool((torch.native_dropout(torch.ones(1000, device=device), 0.5, True)[1] == one).all())


def ceilings(say, device) -> None:
    """How fast this card copies, and multiplies matrices of the sizes that a step has."""
    cuda = device.type == "cuda"
    big = 1 << 31 if cuda else 1 << 22
    with say.tried("copy GB/s") as found:
        one = torch.empty(big, dtype=torch.uint8, device=device)
        found["rate"] = 2 * big / timed(partial(torch.empty_like(one).copy_, one), device, 5) / 1e9
        del one
    for rows, inputs, outputs in ((8192, 8192, 8192), (1600, 4096, 4096), (3072, 4096, 14336), (3072, 14336, 4096), (12288, 4096, 14336),
                                  (2048, 4096, 8192), (3072, 4096, 16)):
        if not cuda:
            rows, inputs, outputs = (max(8, size // 64) for size in (rows, inputs, outputs))
        with say.tried("product TFLOP/s", size=(rows, inputs, outputs)) as found:
            x, w = (torch.randn(size, device=device, dtype=torch.bfloat16) for size in ((rows, inputs), (outputs, inputs)))
            found["rate"] = 2 * rows * inputs * outputs / timed(partial(torch.mm, x, w.t()), device, 8) / 1e12


def varlen(device, kind, window) -> dict:
    """The engine's one call, forward and backward, against an explicit mask in float32."""
    branches, at = [], 0
    for trunk, shared, branch in ((70, 40, 33), (130, 1, 200), (64, 63, 1), (300, 128, 0), (5, 5, 9)):
        branches.append(Branch(at, trunk, shared, branch))
        at += trunk + branch
    torch.manual_seed(1)
    sides = [torch.randn(1, heads, at, 128, device=device, dtype=kind, requires_grad=True) for heads in (8, 2, 2)]
    out = attention._one_call(*sides, attention.Layout(branches, device), None, window)
    may = torch.zeros(at, at, dtype=torch.bool)
    for one in branches:
        places = list(range(one.shared)) + list(range(one.trunk, one.trunk + one.branch))
        for query in range(one.trunk):
            may[one.start + query, one.start : one.start + query + 1] = True
        for number, query in enumerate(places[one.shared :], one.shared):
            may[one.start + query, [one.start + place for place in places[: number + 1]]] = True
        if window is not None:
            for order in (list(range(one.trunk)), places):
                for number, query in enumerate(order):
                    if order is places and number < one.shared:
                        continue
                    for place in order[: max(0, number - window + 1)]:
                        may[one.start + query, one.start + place] = False
    exact = [side.detach().float().requires_grad_() for side in sides]
    keys, values = (side.repeat_interleave(4, 1) for side in exact[1:])
    scores = (exact[0] @ keys.transpose(2, 3) * 128**-0.5).masked_fill(~may.to(device), -math.inf)
    wanted = (scores.softmax(-1) @ values).transpose(1, 2)
    weights = torch.randn_like(wanted)
    (out.float() * weights).sum().backward()
    (wanted * weights).sum().backward()
    return {"off": apart(out, wanted), **{f"off, gradient of {name}": apart(one.grad, two.grad)
                                          for name, one, two in zip("qkv", sides, exact, strict=True)}}


def resumed_optimizer(device) -> dict:
    import bitsandbytes as bnb

    def fresh():
        torch.manual_seed(0)
        weights = [torch.nn.Parameter(torch.randn(size, device=device)) for size in ((512, 512), (16, 8))]
        return weights, bnb.optim.AdamW(weights, lr=1e-2, optim_bits=8, is_paged=True)

    def steps(weights, optimizer, seeds):
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            for weight in weights:
                weight.grad = torch.randn(weight.shape, generator=generator).to(device)
            optimizer.step()
        wait(device)

    weights, optimizer = fresh()
    steps(weights, optimizer, (1, 2))
    flat, rest = resuming._flat(optimizer.state_dict())
    flat = {name: value.detach().cpu().clone() for name, value in flat.items()}
    others, other = fresh()
    with torch.no_grad():
        for one, two in zip(others, weights, strict=True):
            one.copy_(two)
    other.load_state_dict(resuming._nested(flat, json.loads(json.dumps(rest))))
    steps(weights, optimizer, (3, 4))
    steps(others, other, (3, 4))
    return {"off": max(apart(one, two) for one, two in zip(others, weights, strict=True))}
