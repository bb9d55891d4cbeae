"""The code of the fused kernels in Triton. net/kernels.py says when they run, and what for.

The module needs Triton. On a GPU the kernels are compiled. With TRITON_INTERPRET=1 in the
environment Triton runs them step by step in numpy, on CPU tensors too: slow, but exact enough for
tests. Triton reads the variable when it is imported.

Shapes: M rows, V' ids that can be written, B, H, L and head as in model.py.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs

INTERPRETED: bool = knobs.runtime.interpret
DRAW_BLOCK = 1024  # logits that a program holds at once
ROTARY_ROWS = 16  # rows of `head` numbers that a program holds at once
# Halvings until a bisection of all float32 numbers has found a single one.
HALVINGS = tl.constexpr(32)
LOWEST_KEY = tl.constexpr(-2139095041)  # `order_key` of minus infinity


@triton.jit
def order_key(x):
    """int32 numbers in the same order as the float32 numbers x; both zeros have one key."""
    bits = tl.where(x == 0, 0.0, x).to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)  # a larger negative number has smaller bits


@triton.jit
def logits_at(start, left, V, BLOCK: tl.constexpr):
    """Logits left .. left + BLOCK - 1 of a row: (BLOCK,) float32, minus infinity behind its end."""
    where = left + tl.arange(0, BLOCK)
    return tl.load(start + where, mask=where < V, other=float("-inf"))


@triton.jit
def weights_at(start, left, best, temperature, V, BLOCK: tl.constexpr):
    """exp((x - best) / temperature) of these logits, (BLOCK,) float64; and their keys, int32."""
    x = logits_at(start, left, V, BLOCK)
    return tl.exp((x.to(tl.float64) - best) / temperature), order_key(x)


@triton.jit
def largest_two(start, V, BLOCK: tl.constexpr):
    """The two largest logits of a row, float32, and where the first of the largest stands."""
    lane = tl.arange(0, BLOCK)
    best = tl.full([], float("-inf"), tl.float32)
    second = tl.full([], float("-inf"), tl.float32)
    likeliest = tl.full([], 0, tl.int32)
    for left in range(0, V, BLOCK):
        x = logits_at(start, left, V, BLOCK)
        top = tl.max(x, 0)
        at = tl.argmax(x, 0)
        runner_up = tl.max(tl.where(lane == at, float("-inf"), x), 0)
        second = tl.maximum(tl.maximum(second, runner_up), tl.minimum(best, top))
        likeliest = tl.where(top > best, left + at, likeliest).to(tl.int32)
        best = tl.maximum(best, top)
    return best, second, likeliest


@triton.jit
def sums_of(start, best, V, BLOCK: tl.constexpr):
    """The sums of w = exp(x - best) and of w (x - best), of which the figures are made: float64."""
    total = tl.full([], 0.0, tl.float64)
    moment = tl.full([], 0.0, tl.float64)
    for left in range(0, V, BLOCK):
        drop = logits_at(start, left, V, BLOCK).to(tl.float64) - best
        weight = tl.exp(drop)
        total += tl.sum(weight, 0)
        # Without weight the drop may be infinite, and 0 times infinity is no number.
        moment += tl.sum(weight * tl.where(weight > 0, drop, 0.0), 0)
    return total, moment


@triton.jit
def mass_above(start, key_limit, best, temperature, V, BLOCK: tl.constexpr):
    """The weight of all logits whose key is larger than this one: float64."""
    mass = tl.full([], 0.0, tl.float64)
    for left in range(0, V, BLOCK):
        weight, key = weights_at(start, left, best, temperature, V, BLOCK)
        mass += tl.sum(tl.where(key > key_limit, weight, 0.0), 0)
    return mass


@triton.jit
def edge_of(start, limit, highest, best, temperature, V, BLOCK: tl.constexpr):
    """The smallest key with less weight above it than the limit: int32.

    The weight above a key falls with the key. So halving finds the edge among all float32 numbers,
    without a sort. highest: the key of the largest logit.
    """
    low = tl.full([], LOWEST_KEY, tl.int64)
    high = highest.to(tl.int64)
    for _ in range(HALVINGS):
        middle = (low + high) >> 1
        mass = mass_above(start, middle.to(tl.int32), best, temperature, V, BLOCK)
        high = tl.where(mass < limit, middle, high)
        low = tl.where(mass < limit, low, middle + 1)
    return high.to(tl.int32)


@triton.jit
def nucleus_of(start, limit, highest, best, temperature, V, BLOCK: tl.constexpr):
    """The nucleus keeps all keys above its edge, and the first `equals` tokens at the edge.

    Equal logits are common in bfloat16: as many as the limit needs stay, from the left.
    Returns edge, equals, and the weight that is kept.
    """
    edge = edge_of(start, limit, highest, best, temperature, V, BLOCK)
    above = mass_above(start, edge, best, temperature, V, BLOCK)
    each = tl.full([], 0.0, tl.float64)
    count = tl.full([], 0, tl.int32)
    for left in range(0, V, BLOCK):
        weight, key = weights_at(start, left, best, temperature, V, BLOCK)
        is_edge = (key == edge) & (left + tl.arange(0, BLOCK) < V)
        each = tl.maximum(each, tl.max(tl.where(is_edge, weight, 0.0), 0))
        count += tl.sum(is_edge.to(tl.int32), 0)
    needed = tl.ceil((limit - above) / tl.where(each > 0, each, 1.0))
    needed = tl.minimum(tl.maximum(needed, 1.0), count.to(tl.float64))
    return edge, needed.to(tl.int32), above + needed * each


@triton.jit
def passing(
    start, point, edge, equals, best, temperature, V, NUCLEUS: tl.constexpr, BLOCK: tl.constexpr
):
    """The first token at which the sum of the kept weights passes the point: int32."""
    lane = tl.arange(0, BLOCK)
    before = tl.full([], 0.0, tl.float64)
    seen = tl.full([], 0, tl.int32)  # tokens at the edge so far
    drawn = tl.full([], 0, tl.int32) + V
    last = tl.full([], 0, tl.int32)
    for left in range(0, V, BLOCK):
        weight, key = weights_at(start, left, best, temperature, V, BLOCK)
        if NUCLEUS:
            is_edge = (key == edge) & (left + lane < V)
            number = seen + tl.cumsum(is_edge.to(tl.int32), 0)  # 1 for the first
            stays = (key > edge) | (is_edge & (number <= equals))
            weight = tl.where(stays, weight, 0.0)
            seen += tl.sum(is_edge.to(tl.int32), 0)
        mass = before + tl.cumsum(weight, 0)
        # A parallel sum may fall by a rounding. A token without weight must never be drawn.
        passed = (weight > 0) & (mass > point)
        drawn = tl.minimum(drawn, tl.min(tl.where(passed, left + lane, V), 0))
        last = tl.maximum(last, tl.max(tl.where(weight > 0, left + lane, 0), 0))
        before += tl.sum(weight, 0)
    return tl.where(drawn < V, drawn, last)  # the point may be the last sum itself


@triton.jit
def draw_kernel(
    logits,  # (M, V') float32, `row_stride` numbers between rows
    uniform,  # (M,) float64
    law,  # (2,) float64: the temperature and top_p. A plain argument would be rounded to float32
    token,  # (M,) int64, and so on: what is written
    log_prob,  # (M,) float64
    largest,  # (M,) float32
    margin,  # (M,) float32
    entropy,  # (M,) float32
    V,
    row_stride,
    LIKELIEST: tl.constexpr,  # temperature 0
    NUCLEUS: tl.constexpr,  # top_p below 1
    BLOCK: tl.constexpr,
):
    """A program per row. The row is read from memory once; the later loops find it in the cache."""
    row = tl.program_id(0).to(tl.int64)
    start = logits + row * row_stride
    best32, second32, drawn = largest_two(start, V, BLOCK)
    best = best32.to(tl.float64)
    total, moment = sums_of(start, best, V, BLOCK)
    if not LIKELIEST:
        temperature = tl.load(law)
        edge = tl.full([], LOWEST_KEY, tl.int32)
        equals = tl.full([], 0, tl.int32)
        kept = mass_above(start, edge, best, temperature, V, BLOCK)  # all that has any weight
        if NUCLEUS:
            limit, highest = tl.load(law + 1) * kept, order_key(best32)
            edge, equals, kept = nucleus_of(start, limit, highest, best, temperature, V, BLOCK)
        point = tl.load(uniform + row) * kept
        drawn = passing(start, point, edge, equals, best, temperature, V, NUCLEUS, BLOCK)
    here = tl.load(start + drawn).to(tl.float64)
    gap = 1.0 - tl.exp(second32.to(tl.float64) - best)
    tl.store(token + row, drawn.to(tl.int64))
    tl.store(log_prob + row, here - best - tl.log(total))
    tl.store(largest + row, (1.0 / total).to(tl.float32))
    tl.store(margin + row, (gap / total).to(tl.float32))
    tl.store(entropy + row, (tl.log(total) - moment / total).to(tl.float32))


def draw_rows(
    logits: Tensor, uniform: Tensor, temperature: float, top_p: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`net.kernels.draw_rows` by the kernel. logits: (M, V') float32, the columns side by side."""
    M, V = logits.shape
    uniform = uniform.contiguous()
    token = uniform.new_empty(M, dtype=torch.long)
    log_prob = torch.empty_like(uniform)
    figures = [uniform.new_empty(M, dtype=torch.float32) for _ in range(3)]
    law = uniform.new_full((2,), temperature)
    law[1:].fill_(top_p)
    if M:
        with torch.cuda.device_of(logits):  # Triton launches on the current GPU
            draw_kernel[(M,)](
                logits,
                uniform,
                law,
                token,
                log_prob,
                *figures,
                V,
                logits.stride(0),
                LIKELIEST=temperature == 0,
                NUCLEUS=top_p < 1,
                BLOCK=min(DRAW_BLOCK, triton.next_power_of_2(V)),
            )
    return token, log_prob, figures[0], figures[1], figures[2]


# ---- QK-norm and rotary positions


@triton.jit
def places(row, rows, heads, length, stride_b, stride_h, stride_l, half, HALF: tl.constexpr):
    """Where the first half of each row stands: (ROWS, HALF) int64; and which numbers exist."""
    batch, head, place = row // (length * heads), row // length % heads, row % length
    column = tl.arange(0, HALF)
    start = batch * stride_b + head * stride_h + place * stride_l  # (ROWS,)
    inside = (row < rows)[:, None] & (column < half)[None, :]
    return start[:, None] + column[None, :], inside


@triton.jit
def halves(tensor, at, inside, half, WIDE: tl.constexpr):
    """Both halves of what stands at these places, in the type of the arithmetic."""
    first = tl.load(tensor + at, mask=inside, other=0.0).to(WIDE)
    second = tl.load(tensor + half + at, mask=inside, other=0.0).to(WIDE)
    return first, second


@triton.jit
def tables(weight, cos, sin, row, rows, length, half, WIDE: tl.constexpr, HALF: tl.constexpr):
    """Both halves of the weight, (1, HALF), and of each row's cos and sin, (ROWS, HALF)."""
    column = tl.arange(0, HALF)[None, :]
    w1, w2 = halves(weight, column, column < half, half, WIDE)
    at = (row % length)[:, None] * (2 * half) + column
    inside = (row < rows)[:, None] & (column < half)
    c1, c2 = halves(cos, at, inside, half, WIDE)
    s1, s2 = halves(sin, at, inside, half, WIDE)
    return w1, w2, c1, c2, s1, s2


@triton.jit
def norm_rotary_kernel(
    x,  # (B, H, L, head), whose last numbers stand side by side
    weight,  # (head,)
    cos,  # (L, head), and so is sin
    sin,
    out,  # as x, with strides of its own
    rows,
    heads,
    length,
    half,
    x_b,
    x_h,
    x_l,
    out_b,
    out_h,
    out_l,
    EPSILON: tl.constexpr,
    WIDE: tl.constexpr,  # the type of the arithmetic
    ROWS: tl.constexpr,
    HALF: tl.constexpr,
):
    """y = n cos + roll(n) sin, with n = x / rms(x) * weight. Channel i meets channel i + half."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    at, inside = places(row, rows, heads, length, x_b, x_h, x_l, half, HALF)
    x1, x2 = halves(x, at, inside, half, WIDE)  # (ROWS, HALF) each
    w1, w2, c1, c2, s1, s2 = tables(weight, cos, sin, row, rows, length, half, WIDE, HALF)
    shrink = tl.rsqrt(tl.sum(x1 * x1 + x2 * x2, 1) / (2 * half) + EPSILON)[:, None]
    n1 = x1 * shrink * w1
    n2 = x2 * shrink * w2
    to, _ = places(row, rows, heads, length, out_b, out_h, out_l, half, HALF)
    tl.store(out + to, n1 * c1 + n2 * s1, mask=inside)  # rounded to the type of `out`
    tl.store(out + half + to, n2 * c2 + n1 * s2, mask=inside)


@triton.jit
def norm_rotary_backward_kernel(
    grad,  # (B, H, L, head): of the output
    x,  # (B, H, L, head)
    weight,  # (head,)
    cos,  # (L, head), and so is sin
    sin,
    grad_x,  # as x, with strides of its own
    grad_weight,  # (programs, head): a part from each program, so that the sum has one order
    rows,
    heads,
    length,
    half,
    grad_b,
    grad_h,
    grad_l,
    x_b,
    x_h,
    x_l,
    out_b,
    out_h,
    out_l,
    EPSILON: tl.constexpr,
    WIDE: tl.constexpr,
    ROWS: tl.constexpr,
    HALF: tl.constexpr,
):
    """The gradients of `norm_rotary_kernel`. The norm is computed again, which costs no memory."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    at, inside = places(row, rows, heads, length, x_b, x_h, x_l, half, HALF)
    x1, x2 = halves(x, at, inside, half, WIDE)  # (ROWS, HALF) each
    at, _ = places(row, rows, heads, length, grad_b, grad_h, grad_l, half, HALF)
    g1, g2 = halves(grad, at, inside, half, WIDE)
    w1, w2, c1, c2, s1, s2 = tables(weight, cos, sin, row, rows, length, half, WIDE, HALF)
    d1 = g1 * c1 + g2 * s2  # the gradient, turned back
    d2 = g2 * c2 + g1 * s1
    shrink = tl.rsqrt(tl.sum(x1 * x1 + x2 * x2, 1) / (2 * half) + EPSILON)[:, None]
    u1 = x1 * shrink  # x / rms(x)
    u2 = x2 * shrink
    along = (tl.sum(d1 * w1 * u1 + d2 * w2 * u2, 1) / (2 * half))[:, None]
    to, _ = places(row, rows, heads, length, out_b, out_h, out_l, half, HALF)
    tl.store(grad_x + to, shrink * (d1 * w1 - u1 * along), mask=inside)
    tl.store(grad_x + half + to, shrink * (d2 * w2 - u2 * along), mask=inside)
    column = tl.arange(0, HALF)
    part = grad_weight + tl.program_id(0) * (2 * half) + column
    tl.store(part, tl.sum(d1 * u1, 0), mask=column < half)
    tl.store(part + half, tl.sum(d2 * u2, 0), mask=column < half)


def shape_of(x: Tensor, epsilon: float) -> tuple[int, tuple[int, int, int, int], dict]:
    """Programs; rows, heads, length and half a head; and what the kernels take as constants."""
    B, H, L, head = x.shape
    constants = {
        "EPSILON": epsilon,
        "WIDE": tl.float64 if x.dtype == torch.float64 else tl.float32,
        "ROWS": ROTARY_ROWS,
        "HALF": triton.next_power_of_2(head // 2),
    }
    rows = B * H * L
    return triton.cdiv(rows, ROTARY_ROWS), (rows, H, L, head // 2), constants


def side_by_side(x: Tensor) -> Tensor:
    """x, copied if the numbers of a head do not stand side by side."""
    return x if x.stride(-1) == 1 else x.contiguous()


def norm_rotary(x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, epsilon: float) -> Tensor:
    """`net.kernels.norm_rotary` by the kernel."""
    out = torch.empty_like(x)
    x = side_by_side(x)
    to = out if out.stride(-1) == 1 else torch.empty_like(x)
    programs, sizes, constants = shape_of(x, epsilon)
    if programs:
        turn = cos.contiguous(), sin.contiguous()
        strides = (*x.stride()[:3], *to.stride()[:3])
        with torch.cuda.device_of(x):
            norm_rotary_kernel[(programs,)](x, weight, *turn, to, *sizes, *strides, **constants)
    return out if to is out else out.copy_(to)


def norm_rotary_backward(
    grad: Tensor, x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """`net.kernels.norm_rotary_backward` by the kernel."""
    out = torch.empty_like(x)
    grad, x = side_by_side(grad), side_by_side(x)
    to = out if out.stride(-1) == 1 else torch.empty_like(x)
    programs, sizes, constants = shape_of(x, epsilon)
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    parts = torch.zeros(programs, x.shape[-1], dtype=wide, device=x.device)
    if programs:
        turn = cos.contiguous(), sin.contiguous()
        strides = (*grad.stride()[:3], *x.stride()[:3], *to.stride()[:3])
        with torch.cuda.device_of(x):
            norm_rotary_backward_kernel[(programs,)](
                grad, x, weight, *turn, to, parts, *sizes, *strides, **constants
            )
    return (out if to is out else out.copy_(to)), parts.sum(0).to(weight.dtype)
