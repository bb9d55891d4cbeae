"""Experts: a block has E feed-forward parts, and a token passes only some of them.

    y(x) = sum over the experts e that process x of p_e(x) MLP_e(x)      p = softmax(W x)

W (E, D) is the router. There are two ways to choose:

    by row    A denoiser attends both ways, so each expert chooses its tokens (arXiv 2202.09368):
              the ceil(c n / E) tokens of a row with the largest p_e. n is the row's number of real
              tokens. The load is exact, so no loss balances it. A token may have several experts,
              or none. Padding is never chosen, and a row's neighbours choose nothing.
    by token  In a twin a token must not know later tokens. So each token takes the c experts with
              its largest p_e (arXiv 2101.03961). No token is dropped. Nothing balances the load.

c is --expert_capacity. An average token passes c experts, so with c = 1 and experts of the dense
width the work is that of the dense network and its router. One expert of capacity 1 is the dense
network.

Each expert is a `model.MLP` with matrices of its own. So Muon makes each matrix of each expert
orthogonal by itself, as it does in a dense network. A stack (E, F, D) would be a tensor that Muon
does not know. Muon trains the router too, which is a matrix inside a block.

Shapes: B rows, L positions, D width, E experts, K = ceil(c L / E) slots of an expert in a row.
"""

from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from base.config import ModelConfig
from base.files import UserError
from model import MLP, WEIGHT_STD, Denoiser
from net import adapters

NEVER = -1.0  # the score of padding: below all probabilities


class Expert(MLP):
    """A feed-forward part of the dense width, or of `expert_hidden`."""

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        if config.expert_hidden:
            width, hidden = config.d_model, config.expert_hidden
            self.gate = nn.Linear(width, hidden, bias=False) if self.gate is not None else None
            self.up = nn.Linear(width, hidden, bias=False)
            self.down = nn.Linear(hidden, width, bias=False)


def share_of_row(config: ModelConfig) -> Fraction:
    """c / E, the share of a row's tokens that an expert takes; exact, as the flag was typed."""
    return Fraction(str(config.expert_capacity)) / config.experts


def slots(share: Fraction, length: int) -> int:
    """ceil(share · length): how many tokens of a row of this length an expert takes."""
    return (length * share.numerator + share.denominator - 1) // share.denominator


def ranks(score: Tensor) -> Tensor:
    """How many values of the last axis come before each value: (…, n) -> (…, n) int64.

    Larger values come first. Of equal values the value at the lower place comes first.
    """
    own, other = score[..., :, None], score[..., None, :]
    place = torch.arange(score.shape[-1], device=score.device)
    earlier = place[None, :] < place[:, None]
    return ((other > own) | ((other == own) & earlier)).sum(-1)


class Experts(nn.Module):
    """The feed-forward part of a block: a router and E experts."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.by_token = config.causal
        self.share = share_of_row(config)
        self.each = int(config.expert_capacity)  # experts of a token, by token
        self.router = nn.Linear(config.d_model, config.experts, bias=False)
        self.experts = nn.ModuleList(Expert(config) for _ in range(config.experts))

    def forward(self, x: Tensor, attend: Tensor | None = None) -> Tensor:
        """x: (B, L, D) -> (B, L, D); zeros where no expert took the token, as at padding.

        attend: (B, 1, 1, L) bool, False at padding; None without padding. Not read by token.
        Raises UserError for a mask that shows each query other keys: experts see whole rows.
        """
        probability = self.probabilities(x)  # (B, L, E)
        if self.by_token:
            return self.choose_by_token(x, probability)
        return self.choose_by_row(x, probability, real_of(attend, x))

    def probabilities(self, x: Tensor) -> Tensor:
        """p of each expert: (B, L, D) -> (B, L, E) float32 at least."""
        # In bfloat16 many tokens would tie, and their place would decide.
        with torch.autocast(x.device.type, enabled=False):
            precise = x if x.dtype == torch.float64 else x.float()
            return F.linear(precise, self.router.weight.to(precise.dtype)).softmax(-1)

    def chosen(self, probability: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor]:
        """The tokens of each expert by row: places (B, E, K) int64, and which of them count.

        probability: (B, L, E). real: (B, L) bool, or None if all are. A short row has fewer tokens
        than slots; what stands in its last slots does not count.
        """
        B, L, E = probability.shape
        score = probability.detach().mT  # (B, E, L)
        if real is not None:
            score = score.masked_fill(~real[:, None], NEVER)
        K = slots(self.share, L)
        # Stable: of equal tokens the earlier is taken, in every batch and on every device.
        place = score.sort(dim=-1, descending=True, stable=True).indices[..., :K]
        slot = torch.arange(K, device=probability.device)
        if real is None:
            return place, torch.ones_like(place, dtype=torch.bool)
        length = real.sum(1)[:, None, None]
        # slot < ceil(share · length), in whole numbers
        counts = slot * self.share.denominator < length * self.share.numerator  # (B, 1, K)
        return place, counts.expand_as(place)

    def choose_by_row(self, x: Tensor, probability: Tensor, real: Tensor | None) -> Tensor:
        """Each expert's tokens through the expert, and back to their places."""
        place, counts = self.chosen(probability, real)
        y = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            where = place[:, number]  # (B, K)
            weight = probability[..., number].gather(1, where) * counts[:, number]
            where = where[..., None].expand(-1, -1, x.shape[-1])
            out = expert(x.gather(1, where)) * weight[..., None]
            # An expert takes a token once, so the order of the sum is that of the experts.
            y = y.scatter_add(1, where, out.to(y.dtype))
        return y

    def choose_by_token(self, x: Tensor, probability: Tensor) -> Tensor:
        """Each token through its likeliest experts. No token sees another."""
        y = torch.zeros_like(x.flatten(0, 1))
        taken = (ranks(probability.detach()) < self.each).flatten(0, 1)  # (B·L, E)
        weights = probability.flatten(0, 1)
        for number, expert in enumerate(self.experts):
            rows = taken[:, number].nonzero()[:, 0]
            # An expert without tokens still runs, on no rows: its gradient is 0, not absent.
            out = expert(x.flatten(0, 1)[rows]) * weights[rows, number, None]
            y = y.index_add(0, rows, out.to(y.dtype))
        return y.view_as(x)


def real_of(attend: Tensor | None, x: Tensor) -> Tensor | None:
    """Which tokens (B, L) are no padding, from a mask of keys that all queries share.

    Raises UserError if the queries of a row see different keys, or more keys than the row has.
    """
    if attend is None:
        return None
    if attend.shape[1:] != (1, 1, x.shape[1]):
        raise UserError(
            "experts that choose from a row, in a network that reads a row part by part",
            "a call on whole rows",
            "use a checkpoint without --experts",
        )
    return attend[:, 0, 0].expand(len(x), -1)


def install(model: Denoiser, config: ModelConfig) -> Denoiser:
    """Give every block of a network its experts, in place; without --experts it stays."""
    if not config.experts:
        return model
    for number in range(len(model.blocks)):
        experts = Experts(config)
        draw_weights(experts, config)
        adapters.replace(model, f"blocks.{number}.mlp", experts)
    return model


def draw_weights(experts: nn.Module, config: ModelConfig) -> None:
    """The start weights, by the rule of `Denoiser.draw_weights`."""
    for name, weight in experts.named_parameters():
        shrink = (2 * config.layers) ** 0.5 if name.endswith("down.weight") else 1.0
        nn.init.normal_(weight, std=WEIGHT_STD / shrink)


def idle_parameters(model: nn.Module) -> float:
    """The weights that an average token does not pass: E - c experts of every block."""
    idle = 0.0
    for part in model.modules():
        if isinstance(part, Experts):
            total = sum(weight.numel() for weight in part.experts.parameters())
            idle += total * (1 - float(part.share))
    return idle


def refuse(config: ModelConfig, what: str, do: str) -> None:
    """Raise UserError for a network of experts, where only dense networks are supported."""
    if config.experts:
        raise UserError(f"{what}, a network of {config.experts} experts", "a dense network", do)
