"""From random numbers to tokens: the draws of all samplers and of the twin.

All draws are float64. The distribution function has steps of 6e-8 near 1 in float32, so rare tokens
would be drawn too seldom (arXiv 2409.02908).
"""

import torch
from torch import Tensor


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
    ordered, index = prob.sort(-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    ordered[before >= top_p] = 0.0  # nothing is before the likeliest token, so it always stays
    return torch.zeros_like(prob).scatter_(-1, index, ordered)


def log_prob_of(logits: Tensor, token: Tensor) -> Tensor:
    """Log-probability of each token (M,) under logits (M, V'), at temperature 1: (M,) float64."""
    return logits.double().log_softmax(-1).gather(-1, token[:, None])[:, 0]


def certainty(logits: Tensor, sampler: str) -> Tensor:
    """How sure the model is of each position, larger is surer: (M, V') -> (M,) float32."""
    log_prob = logits.log_softmax(-1)
    if sampler == "margin":
        best = log_prob.topk(2, -1).values.exp()
        return best[:, 0] - best[:, 1]
    if sampler in ("entropy", "entropy_bound"):
        return -torch.special.entr(log_prob.exp()).sum(-1)  # minus the entropy in nats
    return log_prob.max(-1).values.exp()
