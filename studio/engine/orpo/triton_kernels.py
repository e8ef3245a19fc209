"""The engine's elementwise arithmetic as Triton kernels: each reads and writes memory once where torch's operators do several times.

Gated products, RMS norms, rotary position embeddings and the softmax of a tile of logits. All arithmetic is in float32, whatever
the tensors hold, and rounded once. Nothing here decides whether a kernel is used: `trial` does, after it has compared each with
torch's operators on the card at hand. With TRITON_INTERPRET=1 the same code runs on CPU tensors, slowly.

Numbers that change from pass to pass (tokens, rows) are not specialized, nor is the alignment of tensors with a number per row:
Triton would compile each kernel again for every kind of them, in the middle of a run.
"""

import torch
import triton
import triton.language as tl

from studio.engine.orpo import arithmetic
from studio.engine.orpo.arithmetic import Arithmetic, Gated, GatedGradients, Tile, multiplies_16_bits
from studio.engine.orpo.triton_unpacking import unpack

WIDE = 1024
"""Numbers of a gated product that one program computes."""

HEADS = 8
"""Heads of a token that one program rotates."""

NORM_SIZE = 2048
"""Numbers that one program normalizes at least: several rows where these are short, as those of a head."""

TILE_WIDE = 4096
"""Logits of a row that are in registers at one time."""


def _warps(size: int) -> int:
    """Warps of a program that holds `size` numbers, some 16 of them in each thread."""
    return min(16, max(1, size // 512))


# --- gated products ---------------------------------------------------------------------------------------------------


@triton.jit
def _activation(gate, GELU: tl.constexpr):
    """The activation of a gate and its derivative. GELU by its tanh approximation: 0.5 (1 + tanh z) is sigmoid(2 z)."""
    if GELU:
        square = gate * gate
        share = tl.sigmoid(1.5957691216057308 * gate * (1 + 0.044715 * square))
        slope = share + gate * share * (1 - share) * 1.5957691216057308 * (1 + 3 * 0.044715 * square)
    else:
        share = tl.sigmoid(gate)
        slope = share * (1 + gate * (1 - share))
    return gate * share, slope


@triton.jit
def _gated(gate, up, out, width, gate_stride, up_stride, GELU: tl.constexpr, WIDE: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    inside = place < width
    one = tl.load(gate + row * gate_stride + place, inside, other=0.0).to(tl.float32)
    other = tl.load(up + row * up_stride + place, inside, other=0.0).to(tl.float32)
    activated, _ = _activation(one, GELU)
    tl.store(out + row * width + place, (activated * other).to(out.dtype.element_ty), inside)


@triton.jit
def _gated_backward(upstream, gate, up, by_gate, by_up, product, width, gate_stride, up_stride,
                    GELU: tl.constexpr, AGAIN: tl.constexpr, WIDE: tl.constexpr):
    """Three reads and two or three writes; `by_up` may be `upstream`."""
    row = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    inside = place < width
    at = row * width + place
    gradient = tl.load(upstream + at, inside, other=0.0).to(tl.float32)
    one = tl.load(gate + row * gate_stride + place, inside, other=0.0).to(tl.float32)
    other = tl.load(up + row * up_stride + place, inside, other=0.0).to(tl.float32)
    activated, slope = _activation(one, GELU)
    if AGAIN:
        tl.store(product + at, (activated * other).to(product.dtype.element_ty), inside)
    tl.store(by_gate + at, (gradient * other * slope).to(by_gate.dtype.element_ty), inside)
    tl.store(by_up + at, (gradient * activated).to(by_up.dtype.element_ty), inside)


def gated(gate: torch.Tensor, up: torch.Tensor, kind: str) -> torch.Tensor:
    """activation(gate) * up, of two tensors (..., width) in one shape."""
    gate_rows, up_rows = _rows(gate), _rows(up)
    out = torch.empty(gate.shape, dtype=gate.dtype, device=gate.device)
    count, width = gate_rows.shape
    if count:
        _gated[(count, triton.cdiv(width, WIDE))](gate_rows, up_rows, out, width, gate_rows.stride(0), up_rows.stride(0),
                                                  kind == "gelu", WIDE)
    return out


def gated_backward(upstream: torch.Tensor, gate: torch.Tensor, up: torch.Tensor, kind: str, again: bool) -> GatedGradients:
    """Gradients of gate and up, and with `again` the product once more, for which `upstream` is overwritten."""
    gate_rows, up_rows, upstream = _rows(gate), _rows(up), upstream.contiguous()
    by_gate = torch.empty_like(upstream)
    by_up, product = (upstream, torch.empty_like(upstream)) if again else (torch.empty_like(upstream), None)
    count, width = gate_rows.shape
    if count:
        strides = gate_rows.stride(0), up_rows.stride(0)
        _gated_backward[(count, triton.cdiv(width, WIDE))](upstream, gate_rows, up_rows, by_gate, by_up, product if again else by_gate,
                                                           width, *strides, kind == "gelu", again, WIDE)
    return by_gate, by_up, product


def _rows(x: torch.Tensor) -> torch.Tensor:
    """x as (rows, width) with neighbouring numbers of a row next to each other; halves of a joint projection need no copy."""
    rows = x if x.ndim == 2 else x.reshape(-1, x.shape[-1])
    return rows if rows.stride(-1) == 1 else rows.contiguous()


# --- norms ------------------------------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=["rows"])
def _norm(x, scale, out, rows, width, stride, eps, ROWS: tl.constexpr, WIDE: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    place = tl.arange(0, WIDE)[None, :]
    inside = (row < rows) & (place < width)
    given = tl.load(x + row * stride + place, inside, other=0.0).to(tl.float32)
    inverse = 1 / tl.sqrt(tl.sum(given * given, 1)[:, None] / width + eps)
    factor = tl.load(scale + place, place < width, other=0.0).to(tl.float32)
    tl.store(out + row * width + place, (given * inverse * factor).to(out.dtype.element_ty), inside)


@triton.jit(do_not_specialize=["rows"])
def _norm_backward(upstream, x, scale, by_x, rows, width, upstream_stride, stride, eps, ROWS: tl.constexpr, WIDE: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    place = tl.arange(0, WIDE)[None, :]
    inside = (row < rows) & (place < width)
    given = tl.load(x + row * stride + place, inside, other=0.0).to(tl.float32)
    inverse = 1 / tl.sqrt(tl.sum(given * given, 1)[:, None] / width + eps)
    normed = given * inverse
    factor = tl.load(scale + place, place < width, other=0.0).to(tl.float32)
    slope = tl.load(upstream + row * upstream_stride + place, inside, other=0.0).to(tl.float32) * factor
    along = tl.sum(slope * normed, 1)[:, None] / width
    tl.store(by_x + row * width + place, ((slope - normed * along) * inverse).to(by_x.dtype.element_ty), inside)


class _Norm(torch.autograd.Function):
    """x / sqrt(mean(x^2) + eps) * scale over the last dimension. x is all that is kept of a pass."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, scale: torch.Tensor, eps: float) -> torch.Tensor:
        ctx.save_for_backward(x, scale)
        ctx.eps = eps
        rows, out = _rows(x), torch.empty(x.shape, dtype=x.dtype, device=x.device)
        count, several, wide = _division(rows)
        _norm[(count,)](rows, scale, out, *rows.shape, rows.stride(0), eps, several, wide, num_warps=_warps(several * wide))
        return out

    @staticmethod
    def backward(ctx, upstream: torch.Tensor):
        x, scale = ctx.saved_tensors
        rows, gradients = _rows(x), _rows(upstream)
        by_x = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        count, several, wide = _division(rows)
        _norm_backward[(count,)](gradients, rows, scale, by_x, *rows.shape, gradients.stride(0), rows.stride(0), ctx.eps, several, wide,
                                 num_warps=_warps(several * wide))
        return by_x, None, None


def _division(rows: torch.Tensor) -> tuple[int, int, int]:
    """Programs, rows of each, and the next power of two above the width."""
    wide = triton.next_power_of_2(rows.shape[1])
    several = max(1, NORM_SIZE // wide)
    return triton.cdiv(len(rows), several), several, wide


def norm(scale: torch.Tensor, eps: float, x: torch.Tensor) -> torch.Tensor:
    """The root mean square norm of x, (..., width), in its type."""
    return _Norm.apply(x, scale, eps)


# --- rotary positions -------------------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=["tokens"])
def _rotate(x, out, cos, sin, tokens, heads, half, batch_stride, token_stride, head_stride, angle_stride,
            BACK: tl.constexpr, HEADS: tl.constexpr, HALF: tl.constexpr):
    """One token and several of its heads: (a, b) -> (a cos - b sin, b cos + a sin), or with BACK the transpose of that."""
    number = tl.program_id(0).to(tl.int64)
    batch, token = number // tokens, number % tokens
    head = tl.program_id(1).to(tl.int64) * HEADS + tl.arange(0, HEADS)[:, None]
    place = tl.arange(0, HALF)[None, :]
    along = place < half
    inside = (head < heads) & along
    angle = batch * angle_stride + token * 2 * half + place
    cos_a, cos_b = tl.load(cos + angle, along, other=0.0).to(tl.float32), tl.load(cos + angle + half, along, other=0.0).to(tl.float32)
    sin_a, sin_b = tl.load(sin + angle, along, other=0.0).to(tl.float32), tl.load(sin + angle + half, along, other=0.0).to(tl.float32)
    source = x + batch * batch_stride + token * token_stride + head * head_stride + place
    a, b = tl.load(source, inside, other=0.0).to(tl.float32), tl.load(source + half, inside, other=0.0).to(tl.float32)
    if BACK:
        first, second = a * cos_a + b * sin_b, b * cos_b - a * sin_a
    else:
        first, second = a * cos_a - b * sin_a, b * cos_b + a * sin_b
    target = out + (number * heads + head) * 2 * half + place
    tl.store(target, first.to(out.dtype.element_ty), inside)
    tl.store(target + half, second.to(out.dtype.element_ty), inside)


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, back: bool) -> torch.Tensor:
    """x (batch, heads, tokens, width), returned with all heads of a token side by side in memory, as attention reads them."""
    x = x if x.stride(-1) == 1 else x.contiguous()
    batch, heads, tokens, width = x.shape
    out = torch.empty(batch, tokens, heads, width, dtype=x.dtype, device=x.device)
    half, angle_stride = width // 2, cos.stride(0) if len(cos) > 1 else 0
    _rotate[(batch * tokens, triton.cdiv(heads, HEADS))](x, out, cos, sin, tokens, heads, half, x.stride(0), x.stride(2), x.stride(1),
                                                         angle_stride, back, HEADS, triton.next_power_of_2(half))
    return out.transpose(1, 2)


class _Rotary(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin, back=False)

    @staticmethod
    def backward(ctx, upstream: torch.Tensor):
        return _rotated(upstream, *ctx.saved_tensors, back=True), None, None


def rotary(queries: torch.Tensor, keys: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotary position embedding (arXiv 2104.09864) of queries and keys, (batch, heads, tokens, width).

    `cos` and `sin` are (batch or 1, tokens, width). The halves of the width form the pairs, as in Llama.
    """
    cos, sin = cos.contiguous(), sin.contiguous()
    return _Rotary.apply(queries, cos, sin), _Rotary.apply(keys, cos, sin)


# --- a tile of logits -------------------------------------------------------------------------------------------------


@triton.jit
def _logits_of(product, bias, inside, word, scale, cap, BIAS: tl.constexpr, CAP: tl.constexpr):
    """cap(scale * (product + bias)) and the derivative of the cap; -inf outside the tile."""
    logits = product
    if BIAS:
        logits += tl.load(bias + word, inside, other=0.0).to(tl.float32)
    logits *= scale
    steepness = 1.0
    if CAP:
        squeezed = 2 * tl.sigmoid(2 * logits / cap) - 1  # tanh
        logits, steepness = cap * squeezed, 1 - squeezed * squeezed
    return tl.where(inside, logits, float("-inf")), steepness


@triton.jit(do_not_specialize_on_alignment=["targets", "highest", "total", "at_target", "shrink"])
def _tile(products, numerators, bias, targets, highest, total, at_target, shrink, first, words, scale, cap,
          BIAS: tl.constexpr, CAP: tl.constexpr, WANTED: tl.constexpr, WIDE: tl.constexpr):
    """A row of a tile: its sums brought up to date, then exp(logit - highest) written, by the derivative of the cap."""
    row = tl.program_id(0).to(tl.int64)
    begin = products + row * words
    before = tl.load(highest + row)
    top, sum_ = before, tl.load(total + row)
    # Before the loops: the numerators may overwrite the products, and no barrier separates the second loop from what follows the first.
    place = tl.load(targets + row) - first
    inside = (place >= 0) & (place < words)
    place = tl.where(inside, place, 0)
    wanted = _logits_of(tl.load(begin + place), bias, inside, place, scale, cap, BIAS, CAP)[0]
    tl.store(at_target + row, wanted, inside)
    for start in range(0, words, WIDE):
        word = start + tl.arange(0, WIDE)
        logits, _ = _logits_of(tl.load(begin + word, word < words, other=0.0), bias, word < words, word, scale, cap, BIAS, CAP)
        higher = tl.maximum(top, tl.max(logits, 0))
        sum_ = sum_ * tl.exp(top - higher) + tl.sum(tl.exp(logits - higher), 0)
        top = higher
    tl.store(highest + row, top)
    tl.store(total + row, sum_)
    tl.store(shrink + row, tl.exp(before - top))
    if WANTED:
        for start in range(0, words, WIDE):
            word = start + tl.arange(0, WIDE)
            logits, steepness = _logits_of(tl.load(begin + word, word < words, other=0.0), bias, word < words, word, scale, cap, BIAS, CAP)
            tl.store(numerators + row * words + word, (tl.exp(logits - top) * steepness).to(numerators.dtype.element_ty), word < words)


def tile(given: Tile) -> torch.Tensor:
    """As `arithmetic.tile`, of which all passes over the tile are one kernel."""
    rows, words = given.products.shape
    sums, head, bias = given.sums, given.head, given.head.bias
    numerators = given.products if given.type is torch.float32 else given.products.new_empty(given.products.shape, dtype=given.type)
    _tile[(rows,)](given.products, numerators, given.products if bias is None else bias[given.first :], given.targets,
                   sums.highest, sums.total, sums.at_target, sums.shrink, given.first, words, head.scale, head.softcap or 1.0,
                   bias is not None, head.softcap is not None, given.wanted, TILE_WIDE, num_warps=_warps(TILE_WIDE))
    return numerators


def add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """total += left @ right within the product: on a card the sum costs no pass over memory of its own."""
    if left.dtype is torch.float32 or not multiplies_16_bits(left):
        arithmetic.add_product(total, left, right)
    else:
        torch.addmm(total, left, right, out_dtype=torch.float32, out=total)


FUSED = Arithmetic(Gated(gated, gated_backward), norm, rotary, tile, add_product, unpack)
