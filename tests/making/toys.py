"""Tiny worlds in which everything can be enumerated: 3 symbols, strings of length 3, [MASK] = 3."""

import itertools
import math

import torch

MASK = 3
STRINGS = torch.tensor(
    list(itertools.product(range(3), repeat=3))
)  # (27, 3), in the order of `histogram`


def from_table(table):
    """A denoiser from logits by visible pattern: table (64, 3, 3), its row the string read as a base-4 number."""
    return lambda tokens, share, select: table[(tokens * torch.tensor([16, 4, 1])).sum(-1)][select]


def arbitrary(seed: int = 0, spread: float = 1.5):
    """A denoiser whose conditionals are random and fit no joint distribution."""
    rng = torch.Generator().manual_seed(seed)
    return from_table(spread * torch.randn(64, 3, 3, generator=rng, dtype=torch.float64))


def random_joint(seed: int = 0):
    """p(x) of the 27 strings, (27,) float64."""
    rng = torch.Generator().manual_seed(seed)
    return (1.2 * torch.randn(27, generator=rng, dtype=torch.float64)).softmax(0)


def oracle(joint):
    """The exact conditionals p(x_i | visible) of a joint distribution, by enumeration."""
    table = torch.zeros(64, 3, 3, dtype=torch.float64)
    for row, pattern in enumerate(itertools.product(range(4), repeat=3)):
        pattern = torch.tensor(pattern)
        fits = ((pattern == STRINGS) | (pattern == MASK)).all(1)
        for place, symbol in itertools.product(range(3), range(3)):
            table[row, place, symbol] = joint[fits & (STRINGS[:, place] == symbol)].sum()
    return from_table(table.log())


def tiled(denoise, width: int = 3):
    """The same denoiser on rows of many independent strings: thousands of samples in a few rows."""
    return lambda tokens, share, select: denoise(
        tokens.reshape(-1, width), share, select.reshape(-1, width)
    )


def enumerated_bound(denoise, string, free) -> float:
    """sum over nonempty S of w(|S|) · sum over i in S of -log p(x_i | the rest), with w(k) = 1/(k C(n, k))."""
    places, total = free.nonzero()[:, 0].tolist(), 0.0
    n = len(places)
    for k in range(1, n + 1):
        for chosen in itertools.combinations(places, k):
            select = torch.zeros(1, len(string), dtype=torch.bool)
            select[0, list(chosen)] = True
            log_prob = denoise(
                string[None].masked_fill(select, MASK), torch.tensor([k / n]), select
            ).log_softmax(-1)
            nats = -log_prob.gather(1, string[list(chosen)][:, None]).sum().item()
            total += nats / (k * math.comb(n, k))
    return total


def histogram(tokens):
    """How often each of the 27 strings is in tokens (..., 3 m): (27,) int64."""
    return torch.bincount((tokens.reshape(-1, 3) * torch.tensor([9, 3, 1])).sum(-1), minlength=27)


def chi_square(observed, probability) -> float:
    """p-value of Pearson's test that counts `observed` were drawn from `probability`."""
    expected = probability * observed.sum()
    statistic = ((observed - expected) ** 2 / expected).sum()
    return torch.special.gammaincc(
        torch.tensor((len(observed) - 1) / 2, dtype=torch.float64), statistic / 2
    ).item()
