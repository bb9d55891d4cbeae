"""Toys of noise: V symbols and [MASK] = V, the law of noise as matrices, networks, a quadrature."""

import itertools

import numpy as np
import torch

from net.channels import Channel, Hybrid
from net.token_noise import to_posterior

DATA = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)  # V = 4, L = 1
ENTROPY = -(DATA * DATA.log()).sum().item()
PAIRS = torch.tensor([[6, 1, 2], [1, 5, 3], [4, 1, 7]], dtype=torch.float64) / 30  # V = 3, L = 2
TABLE = 1.5 * torch.randn(4, 4, 2, 3, generator=torch.Generator().manual_seed(3)).double()
KINDS = ("uniform", "hybrid")


def channel_of(kind: str, symbols: int, uniform_share: float = 0.2) -> Channel:
    if kind == "hybrid":
        return Hybrid(symbols, symbols, uniform_share)
    return Channel(symbols, symbols)


def states(channel: Channel) -> int:
    """Ids that can stand in a noised text; uniform noise writes no [MASK]."""
    return channel.writable + isinstance(channel, Hybrid)


def texts(count: int, length: int = 2) -> torch.Tensor:
    """All texts of `count` symbols: (count ** length, length)."""
    return torch.tensor(list(itertools.product(range(count), repeat=length)))


def q(channel: Channel, level: float) -> torch.Tensor:
    """q(z | x) as a matrix (states, states), also from [MASK]."""
    stay, random, mask = channel.shares(torch.tensor(level, dtype=torch.float64))
    count, ids = states(channel), channel.writable
    new = torch.full((count,), random / ids, dtype=torch.float64)
    new[ids:] = mask
    return stay * torch.eye(count, dtype=torch.float64) + new


def nodes(count: int = 60) -> list[tuple[float, float]]:
    """Levels and weights of a quadrature over [0, 1], which tames roots at 0 and 1."""
    points, weights = np.polynomial.legendre.leggauss(count)
    result = []
    for x, w in zip((points + 1) / 2, weights / 2, strict=True):
        y = x**3  # the logarithm at 0; then t(1 - t) is nearly a square
        result.append((y * y * (3 - 2 * y), w * 3 * x * x * 6 * y * (1 - y)))
    return result


def full(level: float, count: int) -> torch.Tensor:
    return torch.full((count,), level, dtype=torch.float64)


def of_one(read: str, channel: Channel):
    """A perfect network of single tokens: p(x), or the posterior p(x | z)."""

    def denoise(text, level, select):
        logits = DATA.log().expand(int(select.sum()), -1)
        told = level[select.nonzero()[:, 0]]
        return to_posterior(channel, logits, text[select], told) if read == "posterior" else logits

    return denoise


def of_two(read: str, channel: Channel, told: float | None = None):
    """A perfect network of pairs, by Bayes' rule; `told`: it believes that this is the level."""

    def denoise(text, level, select):
        assert select.all()
        logits = []
        for row, t in zip(text.tolist(), level.tolist(), strict=True):
            law = q(channel, t if told is None else told)
            logits.append(PAIRS @ law[:3, row[1]])
            logits.append(PAIRS.T @ law[:3, row[0]])
        logits = torch.stack(logits).log()
        if read == "posterior":
            return to_posterior(channel, logits, text.flatten(), level.repeat_interleave(2))
        return logits

    return denoise


def table(text, level, select):
    """A random network of two tokens: leave-one-out logits by the text; the level sharpens them."""
    logits = TABLE[text[:, 0], text[:, 1]] * (1.5 - level.double())[:, None, None]
    return logits[select]
