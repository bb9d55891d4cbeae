"""Experts as they run at the edge: net/experts.py by comparisons and products alone.

TensorRT 10.3 has no NonZero, and the number of tokens that an expert takes follows from the length
of a row, which torch.export does not resolve. So every expert reads every token, and the weight of
a token that it did not take is 0. The choice counts each token's rank among the tokens of its row.

A graph therefore multiplies E / c times as much in its experts as training does. It holds the same
weights.

Shapes: B batch, L length, D width, E experts.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from net import experts


def before(score: Tensor) -> Tensor:
    """`experts.ranks` as a sum of float32: (…, n) -> (…, n)."""
    own, other = score[..., :, None], score[..., None, :]
    place = torch.arange(score.shape[-1])
    earlier = place[None, :] < place[:, None]
    return ((other > own) | ((other == own) & earlier)).float().sum(-1)


class EdgeExpert(nn.Module):
    """One `experts.Expert`, with gate and up as a single product."""

    def __init__(self, expert: experts.Expert):
        super().__init__()
        self.gated = expert.gate is not None
        up = expert.up.weight.detach()
        if expert.gate is not None:
            up = torch.cat([expert.gate.weight.detach(), up])
        self.up = nn.Parameter(up.T.clone())
        self.down = nn.Parameter(expert.down.weight.detach().T.clone())

    def forward(self, x: Tensor) -> Tensor:
        hidden = x @ self.up
        if self.gated:
            gate, hidden = hidden.chunk(2, -1)
            return (F.silu(gate) * hidden) @ self.down
        return F.gelu(hidden) @ self.down


class EdgeExperts(nn.Module):
    """The feed-forward part of a block with experts."""

    def __init__(self, mlp: experts.Experts):
        super().__init__()
        self.by_token, self.share, self.each = mlp.by_token, mlp.share, mlp.each
        self.router = nn.Parameter(mlp.router.weight.detach().T.clone())  # (D, E)
        self.experts = nn.ModuleList(EdgeExpert(expert) for expert in mlp.experts)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """x: (B, L, D) -> (B, L, D). bias: (B, 1, 1, L), 0 at real tokens, below 0 at padding."""
        probability = (x @ self.router).softmax(-1)  # (B, L, E)
        if self.by_token:
            chosen = before(probability) < self.each
        else:
            chosen = self.by_row(probability, bias[:, 0] >= 0)
        weight = torch.where(chosen, probability, 0.0)
        y = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            y = y + expert(x) * weight[..., number, None]
        return y

    def by_row(self, probability: Tensor, real: Tensor) -> Tensor:
        """Which tokens each expert takes: (B, L, E) bool. real: (B, 1, L) bool."""
        score = torch.where(real, probability.transpose(1, 2), experts.NEVER)  # (B, E, L)
        length = real.float().sum(-1, keepdim=True)  # (B, 1, 1)
        # rank < ceil(share · length), in whole numbers, which float32 holds
        chosen = before(score) * self.share.denominator < length * self.share.numerator
        return chosen.transpose(1, 2)
