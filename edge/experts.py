"""Experts as they run at the edge: net/experts.py by comparisons and products alone.

TensorRT 10.3 has no Scatter and no NonZero, and a sort is no product. So a token's rank among the
tokens of its row is counted, and a matrix of zeros and ones carries an expert's tokens to its slots
and back. In a twin every expert reads every token, and the router's weight of most of them is 0.

Shapes: B batch, L length, D width, E experts, K slots of an expert in a row.
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
            return self.choose_by_token(x, probability)
        return self.choose_by_row(x, probability, bias[:, 0] >= 0)

    def choose_by_row(self, x: Tensor, probability: Tensor, real: Tensor) -> Tensor:
        """As `experts.Experts.choose_by_row`. real: (B, 1, L) bool."""
        share, L = self.share, x.shape[1]
        score = probability.transpose(1, 2)  # (B, E, L)
        rank = before(torch.where(real, score, experts.NEVER))
        slot = torch.arange(experts.slots(share, L)).float()
        length = real.float().sum(-1, keepdim=True)  # (B, 1, 1)
        # slot < ceil(share · length), in whole numbers, which float32 holds
        counts = slot * share.denominator < length * share.numerator  # (B, 1, K)
        carried = (rank[..., None, :] == slot[:, None]) & counts[..., None]  # (B, E, K, L)
        y = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            to_slots = carried[:, number].float()  # (B, K, L)
            out = expert(to_slots @ x) * (to_slots @ probability[..., number, None])
            y = y + to_slots.transpose(1, 2) @ out
        return y

    def choose_by_token(self, x: Tensor, probability: Tensor) -> Tensor:
        """As `experts.Experts.choose_by_token`, through every expert."""
        weight = torch.where(before(probability) < self.each, probability, 0.0)
        y = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            y = y + expert(x) * weight[..., number, None]
        return y
