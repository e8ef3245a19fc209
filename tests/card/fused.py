"""Triton kernels for the engine, as an experiment: what fusing would gain on a card. Nothing of the product imports this.

Each stands for a chain of eager kernels of studio/engine/orpo: the gated product (gated.py), rotary positions (transformers'),
and the softmax of a tile of logits (head.py). `TRITON_INTERPRET=1 python -m tests.card.fused` checks all three on a CPU.
"""

import torch
import triton
import triton.language as tl

WIDE = 1024


# --- silu(gate) * up ---------------------------------------------------------------------------------------------------


@triton.jit
def _gated(gate, up, out, size, WIDE: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * WIDE + tl.arange(0, WIDE)
    ok = at < size
    g = tl.load(gate + at, ok, other=0.0).to(tl.float32)
    u = tl.load(up + at, ok, other=0.0).to(tl.float32)
    tl.store(out + at, (g * tl.sigmoid(g) * u).to(out.dtype.element_ty), ok)


@triton.jit
def _gated_back(upstream, gate, up, by_gate, product, size, WIDE: tl.constexpr):
    """The gradient of gate to by_gate, that of up over `upstream`, and the product made anew: three reads, three writes."""
    at = tl.program_id(0).to(tl.int64) * WIDE + tl.arange(0, WIDE)
    ok = at < size
    d = tl.load(upstream + at, ok, other=0.0).to(tl.float32)
    g = tl.load(gate + at, ok, other=0.0).to(tl.float32)
    u = tl.load(up + at, ok, other=0.0).to(tl.float32)
    s = tl.sigmoid(g)
    a = g * s
    tl.store(product + at, (a * u).to(product.dtype.element_ty), ok)
    tl.store(by_gate + at, (d * u * s * (1 + g * (1 - s))).to(by_gate.dtype.element_ty), ok)
    tl.store(upstream + at, (d * a).to(upstream.dtype.element_ty), ok)


def gated(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(gate)
    _gated[(triton.cdiv(gate.numel(), WIDE),)](gate, up, out, gate.numel(), WIDE)
    return out


def gated_back(upstream: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(gradient of gate, gradient of up, the product); `upstream` is overwritten. All contiguous, of one shape."""
    by_gate, product = torch.empty_like(gate), torch.empty_like(gate)
    _gated_back[(triton.cdiv(gate.numel(), WIDE),)](upstream, gate, up, by_gate, product, gate.numel(), WIDE)
    return by_gate, upstream, product


# --- rotary positions ---------------------------------------------------------------------------------------------------


@triton.jit
def _turn(x, out, cos, sin, heads, stride_token, stride_head, SIGN: tl.constexpr, HALF: tl.constexpr, ROWS: tl.constexpr):
    """One token's heads at a time: (first, second) halves -> first * cos - second * sin, second * cos + first * sin."""
    token, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    head = block * ROWS + tl.arange(0, ROWS)[:, None]
    place = tl.arange(0, HALF)[None, :]
    ok = head < heads
    c = tl.load(cos + token * 2 * HALF + place).to(tl.float32)
    s = tl.load(sin + token * 2 * HALF + place).to(tl.float32) * SIGN
    come = x + token * stride_token + head * stride_head + place
    go = out + (token * heads + head) * 2 * HALF + place
    one, two = tl.load(come, ok, other=0.0).to(tl.float32), tl.load(come + HALF, ok, other=0.0).to(tl.float32)
    tl.store(go, (one * c - two * s).to(out.dtype.element_ty), ok)
    tl.store(go + HALF, (two * c + one * s).to(out.dtype.element_ty), ok)


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, sign: float) -> torch.Tensor:
    """x (1, heads, tokens, width), its width contiguous; returned with tokens' heads contiguous, as attention reads them."""
    _, heads, tokens, width = x.shape
    out = torch.empty(1, tokens, heads, width, dtype=x.dtype, device=x.device)
    rows = 8
    _turn[(tokens, triton.cdiv(heads, rows))](x, out, cos, sin, heads, x.stride(2), x.stride(1), sign, width // 2, rows)
    return out.transpose(1, 2)


class Rotary(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, cos, sin):
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin, 1.0)

    @staticmethod
    def backward(ctx, upstream):
        cos, sin = ctx.saved_tensors
        if upstream.stride(-1) != 1:
            upstream = upstream.contiguous()
        return _turned(upstream, cos, sin, -1.0), None, None


def rotary(q, k, cos, sin, *_, **__):
    """In place of transformers' apply_rotary_pos_emb, for one packed row: cos and sin (1, tokens, width), both halves alike."""
    cos, sin = cos.contiguous(), sin.contiguous()
    return Rotary.apply(q, cos, sin), Rotary.apply(k, cos, sin)


# --- a tile of logits ---------------------------------------------------------------------------------------------------


@triton.jit
def _tile(logits, numerators, targets, highest, total, at_target, shrink, first, words, WIDE: tl.constexpr):
    """A row of a tile: read once, its running maximum, sum and target brought up to date, exp(logit - highest) written in 16 bits."""
    row = tl.program_id(0).to(tl.int64)
    word = tl.arange(0, WIDE)
    ok = word < words
    x = tl.load(logits + row * words + word, ok, other=float("-inf"))
    before = tl.load(highest + row)
    top = tl.maximum(before, tl.max(x, 0))
    e = tl.exp(x - top)
    less = tl.exp(before - top)
    tl.store(total + row, tl.load(total + row) * less + tl.sum(tl.where(ok, e, 0.0), 0))
    tl.store(highest + row, top)
    tl.store(shrink + row, less)
    place = tl.load(targets + row) - first
    hit = tl.sum(tl.where(word == place, x, 0.0), 0)
    inside = (place >= 0) & (place < words)
    tl.store(at_target + row, tl.where(inside, hit, tl.load(at_target + row)))
    tl.store(numerators + row * words + word, e.to(numerators.dtype.element_ty), ok)


def tile(logits, numerators, targets, highest, total, at_target, shrink, first: int) -> None:
    rows, words = logits.shape
    wide = triton.next_power_of_2(words)
    _tile[(rows,)](logits, numerators, targets, highest, total, at_target, shrink, first, words, wide, num_warps=min(16, max(4, wide // 512)))


def streamed(hidden: torch.Tensor, targets: torch.Tensor, head, block: torch.Tensor, wanted: bool):
    """In place of head._streamed, for a head in 16 bits without bias, scale or cap: the tile's six passes are one."""
    rows, words, half = len(hidden), len(head.weight), head.weight.dtype
    highest = torch.full((rows,), torch.finfo(torch.float32).min, dtype=torch.float32, device=hidden.device)
    total, at_target, shrink = torch.zeros_like(highest), torch.zeros_like(highest), torch.zeros_like(highest)
    pull = torch.zeros(rows, hidden.shape[1], dtype=torch.float32, device=hidden.device)
    wide = max(64, min(8192, len(block) // rows // 64 * 64))
    numerators = torch.empty(rows * wide, dtype=half, device=hidden.device)
    own = targets[:, 0].contiguous()
    for first in range(0, words, wide):
        weight = head.weight[first : first + wide]
        logits = block[: rows * len(weight)].view(rows, -1)
        _mm(hidden, weight.t(), logits)
        exps = numerators[: rows * len(weight)].view(rows, -1)
        tile(logits, exps, own, highest, total, at_target, shrink, first)
        if wanted:
            pull.mul_(shrink[:, None])
            _add(pull, exps, weight)
    logps = at_target - highest - total.log()
    return (logps, head.weight[own].float().sub_(pull.div_(total[:, None]))) if wanted else (logps, None)


def _mm(left, right, out) -> None:
    if left.is_cuda and left.dtype != torch.float32:
        torch.mm(left, right, out_dtype=torch.float32, out=out)
    else:
        torch.mm(left.float(), right.float(), out=out)


def _add(total, left, right) -> None:
    if left.is_cuda:
        try:
            torch.addmm(total, left, right, out_dtype=torch.float32, out=total)  # the sum within the product
            return
        except (TypeError, RuntimeError):
            total += torch.mm(left, right, out_dtype=torch.float32)
    else:
        total.addmm_(left.float(), right.float())


# --- into the engine, for a while ---------------------------------------------------------------------------------------


class fused:
    """Context in which the engine computes with these kernels. `parts`: which of gated, rotary, head."""

    def __init__(self, *parts: str):
        self.parts = parts or ("gated", "rotary", "head")

    def __enter__(self):
        from transformers.models.llama import modeling_llama as llama

        from studio.engine.orpo import gated as g
        from studio.engine.orpo import head as h
        from studio.engine.orpo import lora

        self.undo = []
        if "gated" in self.parts:
            own = g._GatedAndNarrowed

            class Fused(torch.autograd.Function):
                @staticmethod
                def forward(ctx, gate, up, kind, narrow, share):
                    product = gated(gate, up)
                    dropped, stays = lora.dropped_of(product, share)
                    ctx.save_for_backward(gate, up, narrow, stays)
                    ctx.share = share
                    return product, dropped @ narrow.to(product.dtype).t()

                @staticmethod
                def backward(ctx, by_product, by_inner):
                    gate, up, narrow, stays = ctx.saved_tensors
                    upstream = lora.with_narrow(by_product, by_inner, narrow.to(gate.dtype), stays, ctx.share).contiguous()
                    by_gate, by_up, product = gated_back(upstream, gate, up)
                    return by_gate, by_up, None, (by_inner.t() @ lora.without(product, stays, ctx.share)).to(narrow.dtype), None

            g._GatedAndNarrowed = Fused
            self.undo.append((g, "_GatedAndNarrowed", own))
        if "rotary" in self.parts:
            self.undo.append((llama, "apply_rotary_pos_emb", llama.apply_rotary_pos_emb))
            llama.apply_rotary_pos_emb = rotary
        if "head" in self.parts:
            self.undo.append((h, "_streamed", h._streamed))
            h._streamed = streamed
        return self

    def __exit__(self, *_):
        for module, name, own in self.undo:
            setattr(module, name, own)


def check(device: str = "cpu") -> dict[str, float]:
    """How far each kernel is from torch, relative; on a CPU with TRITON_INTERPRET=1."""
    torch.manual_seed(0)
    kind = torch.float32 if device == "cpu" else torch.bfloat16
    off = {}

    def apart(name, ours, own):
        off[name] = ((ours.float() - own.float()).norm() / own.float().norm()).item()

    gate, up, down = (torch.randn(37, 96, device=device, dtype=kind) for _ in range(3))
    g, u = (side.float().detach().clone().requires_grad_() for side in (gate, up))
    exact = torch.nn.functional.silu(g) * u
    exact.backward(down.float())
    apart("gated", gated(gate, up), exact)
    by_gate, by_up, product = gated_back(down.clone(), gate, up)
    for name, ours, own in (("gated: gate", by_gate, g.grad), ("gated: up", by_up, u.grad), ("gated: product", product, exact)):
        apart(name, ours, own)

    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    x = torch.randn(1, 11, 6, 32, device=device, dtype=kind).transpose(1, 2)
    angle = torch.randn(1, 11, 16, device=device).repeat(1, 1, 2)
    q = x.float().detach().clone().requires_grad_()
    own, _ = apply_rotary_pos_emb(q, q, angle.cos(), angle.sin())
    y = x.detach().clone().requires_grad_()
    ours, _ = rotary(y, y, angle.cos().to(kind), angle.sin().to(kind))
    weights = torch.randn_like(own)
    (own * weights).sum().backward()
    (ours.float() * weights).sum().backward()
    apart("rotary", ours, own)
    apart("rotary: back", y.grad, q.grad)

    hidden, weight = torch.randn(19, 64, device=device, dtype=kind) * 0.3, torch.randn(1000, 64, device=device, dtype=kind) * 0.3
    targets = torch.randint(0, 1000, (19, 1), device=device)
    h = hidden.float().detach().clone().requires_grad_()
    own = (h @ weight.float().t()).log_softmax(-1).gather(1, targets)[:, 0]
    own.sum().backward()
    ours, slope = streamed(hidden, targets, type("Head", (), {"weight": weight}), torch.empty(19 * 256, device=device), True)
    apart("head", ours, own)
    apart("head: slope", slope, h.grad)
    return off


if __name__ == "__main__":
    import json
    import sys

    print(json.dumps(check(*sys.argv[1:]), indent=1))
