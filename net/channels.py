"""What noise does to a token: it stays, it becomes a random id, or it becomes [MASK].

At time t in [0, 1] each free token x becomes z, on its own. V ids can be written:

    q(z | x) = a 1[z = x] + b(z)        b(an id) = U / V        b([MASK]) = m        a + U + m = 1

[PAD] and [BOS] lie at or above V and are never written. Two kinds of noise:

    uniform   a = 1 - t            U = t        m = 0
    hybrid    a = (1 - t) / C      U = c / C    m = t / C      C = 1 + c
              c = B sqrt(t (1 - t))             B = 2 p / (1 - p)

Hybrid noise is GIDD's (arXiv 2503.04482) with its gamma at 1. It begins and ends like masks: at
t = 1 all is [MASK]. p is `uniform_share`, the share of tokens that are random at t = 1/2. With
p = 0 it is the noise of masks.

While t grows, a place jumps to z at the rate r(z) = b'(z) - a'/a b(z), whatever stands there. All
kinds have r(z) = b(z) / (k t (1 - t)) for ids and for [MASK], with k as follows:

    uniform   an id: 1
    hybrid    an id: 2        [MASK]: 1

A larger gamma than 2 would make a rate negative near t = 1: no such process exists.

Shapes: B rows, L positions, M places, V ids.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from base.config import ModelConfig

# The least level. Below it, ratios of probabilities leave the range of float32. Levels in
# [0, LEAST) count as LEAST: they are a millionth of all levels.
LEAST = 1e-6
SMALL = 1e-300  # in place of a share of 0, where a logarithm is taken


class Shares(NamedTuple):
    """a, U and m of the levels, float64: that a token stays, is a random id, is [MASK]."""

    stay: Tensor
    random: Tensor
    mask: Tensor


class Channel:
    """Uniform noise: `Shares` of a level, and how levels are drawn. writable: V."""

    id_slowness = 1.0  # k of an id, as above
    power = 2  # levels are t = u ** power

    def __init__(self, writable: int, mask_id: int):
        self.writable, self.mask_id = writable, mask_id

    def shares(self, level: Tensor) -> Shares:
        """a, U and m at the levels t, float64 of any shape."""
        return Shares(1 - level, level, torch.zeros_like(level))

    def start(self, uniform: Tensor) -> Tensor:
        """Tokens at t = 1, from uniform numbers in [0, 1): int64 of the same shape."""
        return (uniform * self.writable).long().clamp(max=self.writable - 1)

    def levels(self, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Levels t (B,) from numbers u in [0, 1), and what each counts, dt/du, for the bound.

        Near t = 0 few tokens are random ids, and each of them counts much: about log(1/t) / t. With
        levels that are uniform in t, the variance would grow without end as LEAST falls.
        """
        level = uniform.pow(self.power).clamp(min=LEAST)
        return level, self.power * uniform.pow(self.power - 1)

    def corrupt(self, tokens: Tensor, free: Tensor, level: Tensor, rng: torch.Generator) -> Tensor:
        """Noise on the free tokens of tokens (B, L) at the levels (B,): (B, L).

        A token may be replaced by itself. Given positions keep their tokens. level: on the CPU.
        """
        # Drawn on the CPU, so that a GPU trains on the same noise.
        coin = torch.rand(free.shape, generator=rng, dtype=torch.float64)
        other = torch.randint(self.writable, free.shape, generator=rng)
        _, random, mask = (share[:, None] for share in self.shares(level))
        other.masked_fill_(coin >= random, self.mask_id)
        replaced = (coin < random + mask).to(free.device) & free
        return torch.where(replaced, other.to(tokens.device), tokens)

    def evidence(self, standing: Tensor, level: Tensor) -> Tensor:
        """What standing tokens (M,) say for themselves, log((a + U/V) / (U/V)): (M,) float64.

        [MASK] says nothing.
        """
        stay, random, _ = self.shares(level)
        said = torch.log1p(stay * self.writable / random.clamp(min=SMALL))
        return said.masked_fill(standing == self.mask_id, 0.0)

    def urgency(self, standing: Tensor, level: Tensor) -> Tensor:
        """r(z) / b(z) of standing tokens (M,) at the levels (M,): (M,) float64."""
        slow = torch.where(standing == self.mask_id, 1.0, self.id_slowness)
        return 1 / (slow * level * (1 - level))


class Hybrid(Channel):
    """Masks and random ids. uniform_share: p."""

    id_slowness = 2.0
    power = 3

    def __init__(self, writable: int, mask_id: int, uniform_share: float):
        super().__init__(writable, mask_id)
        self.most = 2 * uniform_share / (1 - uniform_share)  # B

    def shares(self, level: Tensor) -> Shares:
        c = self.most * (level * (1 - level)).sqrt()
        return Shares((1 - level) / (1 + c), c / (1 + c), level / (1 + c))

    def start(self, uniform: Tensor) -> Tensor:
        return torch.full(uniform.shape, self.mask_id, device=uniform.device)


def channel_of(config: ModelConfig, mask_id: int) -> Channel:
    """The noise of tokens that a network learnt."""
    if config.noise == "hybrid":
        return Hybrid(config.output_size, mask_id, config.uniform_share)
    return Channel(config.output_size, mask_id)
