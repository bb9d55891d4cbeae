"""From random numbers to tokens: the draws of all samplers and of the twin.

All draws are float64. The distribution function has steps of 6e-8 near 1 in float32, so rare tokens
would be drawn too seldom (arXiv 2409.02908).
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor


class Drawn(NamedTuple):
    """A draw from each of M rows of logits, and how sure the model is of the rows: (M,) each.

    token: int64. log_prob: float64, of the token at temperature 1. largest: float32, the largest
    probability. margin: float32, to the second. entropy: float32, nats.
    """

    token: Tensor
    log_prob: Tensor
    largest: Tensor
    margin: Tensor
    entropy: Tensor


# Draws in one pass over the logits, inside of `net.kernels.use`: logits, uniform, temperature,
# top_p -> Drawn.
one_pass: ContextVar[Callable[[Tensor, Tensor, float, float], Drawn] | None]
one_pass = ContextVar("one_pass", default=None)


def draw_uniforms(where: Tensor, rngs: list[torch.Generator]) -> Tensor:
    """A uniform number at each position of `where` (B, L), from its row's generator: float64.

    A row draws exactly as many numbers as it needs. So neither neighbours nor padding change them.
    """
    result = torch.zeros(where.shape, dtype=torch.float64)
    for row, (positions, rng) in enumerate(zip(where.cpu(), rngs, strict=True)):
        count = int(positions.sum())
        if count:
            result[row, positions] = torch.rand(count, generator=rng, dtype=torch.float64)
    return result.to(where.device)


def draw_normals(where: Tensor, width: int, rngs: list[torch.Generator]) -> Tensor:
    """`width` normal numbers at each position of `where` (B, L), else 0: (B, L, width) float64.

    They come from the row's generator, as in `draw_uniforms`.
    """
    result = torch.zeros(*where.shape, width, dtype=torch.float64)
    for row, (positions, rng) in enumerate(zip(where.cpu(), rngs, strict=True)):
        count = int(positions.sum())
        if count:
            result[row, positions] = torch.randn(count, width, generator=rng, dtype=torch.float64)
    return result.to(where.device)


def draw_tokens(
    logits: Tensor, uniform: Tensor, temperature: float = 1.0, top_p: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Draw a token per row by the inverse of its distribution function, in float64.

    logits: (M, V'). uniform: (M,) float64 in [0, 1). top_p keeps the token that crosses the limit.
    Returns tokens (M,) int64 and their log-probabilities at temperature 1, (M,) float64.
    """
    fused = one_pass.get()
    if fused is not None:
        drawn = fused(logits, uniform, temperature, top_p)
        return drawn.token, drawn.log_prob
    return draw_plainly(logits, uniform, temperature, top_p)


def draw_plainly(
    logits: Tensor, uniform: Tensor, temperature: float, top_p: float
) -> tuple[Tensor, Tensor]:
    """`draw_tokens` in plain torch."""
    if temperature == 0:
        token = logits.argmax(-1)
    else:
        prob = (logits.double() / temperature).softmax(-1)
        token = pick(nucleus(prob, top_p) if top_p < 1 else prob, uniform)
    return token, log_prob_of(logits, token)


def distribution(logits: Tensor, temperature: float = 1.0, top_p: float = 1.0) -> Tensor:
    """What tokens are drawn from: logits (M, V') -> probabilities (M, V') float64.

    At temperature 0 the likeliest token has all of it.
    """
    if temperature == 0:
        certain = torch.zeros(logits.shape, dtype=torch.float64, device=logits.device)
        return certain.scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
    prob = (logits.double() / temperature).softmax(-1)
    if top_p < 1:
        prob = nucleus(prob, top_p)
        prob /= prob.sum(-1, keepdim=True)
    return prob


def pick(weight: Tensor, uniform: Tensor) -> Tensor:
    """Draw a token per row in proportion to weight (M, V') float64: (M,) int64."""
    # Rounding leaves the last sum a little off 1, so the point is scaled by it.
    mass = weight.cumsum(-1)
    point = uniform.to(mass.device)[:, None] * mass[:, -1:]
    token = torch.searchsorted(mass, point, right=True)[:, 0]
    return token.clamp_(max=weight.shape[-1] - 1)  # the point may be the last sum itself


def nucleus(prob: Tensor, top_p: float) -> Tensor:
    """Zero all but the likeliest tokens that reach `top_p` together (arXiv 1904.09751): (M, V')."""
    # Stable: of equal tokens at the limit the first ones stay, on every device.
    ordered, index = prob.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered
    ordered[before >= top_p] = 0.0  # nothing is before the likeliest token, so it always stays
    return torch.zeros_like(prob).scatter_(-1, index, ordered)


def log_prob_of(logits: Tensor, token: Tensor) -> Tensor:
    """Log-probability of each token (M,) under logits (M, V'), at temperature 1: (M,) float64."""
    return logits.double().log_softmax(-1).gather(-1, token[:, None])[:, 0]


def certainty(logits: Tensor, sampler: str) -> Tensor:
    """How sure the model is of each position, larger is surer: (M, V') -> (M,) float32."""
    fused = one_pass.get()
    if fused is None:
        return certainty_plainly(logits, sampler)
    # A draw at temperature 0 reads no number.
    number = torch.zeros(len(logits), dtype=torch.float64, device=logits.device)
    drawn = fused(logits, number, 0.0, 1.0)
    if sampler == "margin":
        return drawn.margin
    return -drawn.entropy if sampler in ("entropy", "entropy_bound") else drawn.largest


def certainty_plainly(logits: Tensor, sampler: str) -> Tensor:
    """`certainty` in plain torch."""
    log_prob = logits.log_softmax(-1)
    if sampler == "margin":
        best = log_prob.topk(2, -1).values.exp()
        return best[:, 0] - best[:, 1]
    if sampler in ("entropy", "entropy_bound"):
        return -torch.special.entr(log_prob.exp()).sum(-1)  # minus the entropy in nats
    return log_prob.max(-1).values.exp()
