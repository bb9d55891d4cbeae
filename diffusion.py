"""Masked (absorbing) diffusion: schedules, corruption, the bound (floor 1). Takes a callable, never a model.

Time: t in [0, 1]; t=0 is clean, t=1 is all [MASK]. alpha(t) is the probability that a token is still there.
A denoiser is any `denoise(tokens (B, L), share (B,), select (B, L) bool) -> logits (M, V')` of the selected
positions, where share is the masked share of each row's free positions. Because the network is told the
share and not t, one network serves every schedule.

The quantity everywhere: the negative evidence lower bound in nats,
    bound(x) = sum_{k=1..n} c_k,   c_k = E over masks of exactly k free tokens of the mean -log p of a masked token
for n free tokens. Every schedule gives this same number (Kingma et al. 2021; Sahoo et al. 2024, arXiv
2406.07524, eq. 10; Ou et al. 2024, arXiv 2406.03736): masks of exactly k carry the weight
∫ -alpha'/(1-alpha) (1-alpha)^k alpha^(n-k) dt = 1/(k C(n, k)), whatever alpha is.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Denoise(Protocol):
    def __call__(self, tokens: Tensor, share: Tensor, select: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Schedule:
    """alpha(t) from 1 to 0. linear: 1 - t. cosine: 1 - cos(π/2 (1-t)) (MD4, arXiv 2406.04329). polynomial: 1 - t²."""

    name: str = "linear"
    power: float = 2.0

    def alpha(self, t: Tensor) -> Tensor:
        """Probability that a token is still there at time t, float64 in and out."""
        if self.name == "cosine":
            return 1 - torch.cos(math.pi / 2 * (1 - t))
        return 1 - t if self.name == "linear" else 1 - t**self.power

    def rate(self, t: Tensor) -> Tensor:
        """-alpha'(t) / (1 - alpha(t)): the weight of a masked token's -log p in the bound. Infinite at t=0."""
        if self.name == "cosine":
            return math.pi / 2 * torch.tan(math.pi / 2 * (1 - t))
        return (1.0 if self.name == "linear" else self.power) / t


def stratified(count: int, rng: torch.Generator) -> Tensor:
    """`count` numbers in [0, 1), one in each of `count` equal strata, in random order: (count,) float64.

    Each alone is exactly uniform; together they cover the range, which cuts the variance of the loss.
    """
    shift = torch.rand((), generator=rng, dtype=torch.float64)
    order = torch.randperm(count, generator=rng)
    return ((order + shift) / count).clamp_(max=1 - 2**-53)


def mask_exactly(free: Tensor, counts: Tensor, rng: torch.Generator) -> Tensor:
    """A uniformly random mask of exactly counts[b] of row b's free positions. free (B, L) bool -> (B, L) bool."""
    score = torch.rand(free.shape, generator=rng, dtype=torch.float64)
    score = score.to(free.device).masked_fill_(~free, 2.0)
    rank = score.argsort(1).argsort(1)
    return rank < counts.to(free.device)[:, None]


@dataclass
class Corruption:
    """Masked rows and what each masked token weighs. masked (B, L) bool; share, weight (B,) float64."""

    masked: Tensor
    share: Tensor
    weight: Tensor


def corrupt(
    free: Tensor, uniform: Tensor, rng: torch.Generator, estimator: str = "count"
) -> Corruption:
    """Mask free positions at a noise level given by `uniform` (B,) in [0, 1).

    count: exactly k = 1 + floor(uniform · n) of a row's n free positions, weight n/k. No epsilon, no clamp, and
    a constant cross-entropy gives a constant loss. linear, cosine, polynomial: each free position is masked
    alone with probability 1 - alpha(t), t = uniform, weight -alpha'/(1-alpha).
    In every case the expectation of weight · (sum of -log p over masked tokens) is the bound of the row.
    """
    n = free.sum(1).cpu().double()
    if estimator == "count":
        k = torch.floor(uniform * n).long() + 1
        k = torch.minimum(k, n.long())
        masked = mask_exactly(free, k, rng)
        share, weight = k / n.clamp(min=1), n / k.clamp(min=1)
    else:
        schedule, t = Schedule(estimator), uniform.clamp(min=2**-53)
        draw = torch.rand(free.shape, generator=rng, dtype=torch.float64)
        masked = (draw < 1 - schedule.alpha(t)[:, None]).to(free.device) & free
        share, weight = masked.sum(1).cpu() / n.clamp(min=1), schedule.rate(t)
    return Corruption(masked, share.to(free.device), weight.to(free.device))


def opposite_masks(free: Tensor, uniform: Tensor, rng: torch.Generator) -> list[Corruption]:
    """A mask and its complement: every token is supervised once (LaViDa, arXiv 2505.16839). k is uniform on 0..n
    then, for either mask, and each carries half of the weight (n + 1)/k: together still the bound, unbiased."""
    n = free.sum(1).cpu()
    k = torch.floor(uniform * (n + 1).double()).long()
    one = mask_exactly(free, k, rng)
    return [
        Corruption(
            masked,
            (count / n.clamp(min=1)).to(free.device),
            ((n + 1) / (2.0 * count.clamp(min=1))).double().to(free.device),
        )
        for masked, count in ((one, k), (free & ~one, n - k))
    ]


def masked_losses(
    denoise: Denoise,
    tokens: Tensor,
    masked: Tensor,
    share: Tensor,
    mask_id: int,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """-log p and hit or miss at each masked position: (M,) float32 nats with gradient, (M,) bool, row-major order.

    label_smoothing: share of the target that is spread over the vocabulary (arXiv 1512.00567, section 7), for optimising only.
    """
    logits = denoise(tokens.masked_fill(masked, mask_id), share, masked)
    target = tokens[masked]
    return F.cross_entropy(
        logits, target, reduction="none", label_smoothing=label_smoothing
    ), logits.detach().argmax(-1) == target


def weigh(
    nats: Tensor, token_weight: Tensor, free: int | Tensor, weight: str
) -> tuple[Tensor, dict]:
    """The loss from -log p of the masked tokens (M,), and the figures of it that are reported.

    token_weight (M,): the bound's. free: how many tokens might have been masked. weight: as in `loss`.
    """
    bound = (nats * token_weight).sum() / free
    mean = nats.sum() / max(1, len(nats))  # a schedule's draw may mask nothing at all
    clipped = (nats * token_weight.clamp(max=5.0)).sum() / free
    return {"bound": bound, "clipped": clipped, "flat": mean}[weight], {
        "nats_per_token": bound.item(),
        "masked_cross_entropy": mean.item(),
    }


def loss(
    denoise: Denoise,
    tokens: Tensor,
    free: Tensor,
    *,
    mask_id: int,
    rng: torch.Generator,
    estimator: str = "count",
    weight: str = "bound",
    complementary: bool = False,
    label_smoothing: float = 0.0,
    uniform: Tensor | None = None,
) -> tuple[Tensor, dict]:
    """What training minimises, and what it reports.

    tokens: (B, L) int64. free: (B, L) bool, the positions that may be masked: not given, not padding; at least one
    a row. uniform: (B,) noise levels (a slice of one `stratified` draw over all micro-batches and ranks); None draws
    them here. weight: `bound` is the bound itself; `clipped` caps a masked token's weight at 5; `flat` is plain
    cross-entropy over masked tokens. The last two, for optimising only. complementary adds the
    opposite masks (count estimator only) and stays unbiased. label_smoothing: as in `masked_losses`.
    Returns the mean loss in nats per free token (flat: per masked token) and plain floats: the bound
    (`nats_per_token`), `masked_cross_entropy`, `masked_accuracy`; smoothed if the loss is.
    """
    uniform = stratified(len(tokens), rng) if uniform is None else uniform
    if complementary and estimator != "count":
        raise ValueError("complementary masks need the count estimator")
    drawn = (
        opposite_masks(free, uniform, rng)
        if complementary
        else [corrupt(free, uniform, rng, estimator)]
    )
    nats, hits = (
        torch.cat(parts)
        for parts in zip(
            *(
                masked_losses(denoise, tokens, one.masked, one.share, mask_id, label_smoothing)
                for one in drawn
            ),
            strict=True,
        )
    )
    token_weight = torch.cat([one.weight[one.masked.nonzero()[:, 0]] for one in drawn]).float()
    value, stats = weigh(nats, token_weight, free.sum(), weight)
    return value, {**stats, "masked_accuracy": hits.sum().item() / max(1, len(hits))}


@torch.no_grad()
def bound_estimates(
    denoise: Denoise,
    tokens: Tensor,
    free: Tensor,
    *,
    mask_id: int,
    rng: torch.Generator,
    draws: int = 8,
    estimator: str = "count",
) -> list[dict]:
    """`draws` unbiased estimates of every row's bound, their noise levels stratified within the row.

    Returns one dict a draw with (B,) float64 tensors on the CPU: `nats` (the row's bound), `share`, `masked` tokens,
    and the sums over masked tokens of -log p (`cross_entropy`) and of right guesses (`hits`).
    """
    shift = torch.rand(len(tokens), generator=rng, dtype=torch.float64)
    results = []
    for draw in range(draws):
        drawn = corrupt(free, (draw + shift) / draws, rng, estimator)
        nats, hits = masked_losses(denoise, tokens, drawn.masked, drawn.share, mask_id)
        row = drawn.masked.nonzero()[:, 0]
        total = lambda value: torch.zeros(len(tokens), dtype=torch.float64).index_add_(
            0, row.cpu(), value.double().cpu()
        )  # noqa: B023,E731
        cross_entropy = total(nats)
        results.append(
            {
                "nats": cross_entropy * drawn.weight.cpu(),
                "share": drawn.share.cpu(),
                "masked": drawn.masked.sum(1).cpu(),
                "cross_entropy": cross_entropy,
                "hits": total(hits),
            }
        )
    return results


def guide(conditional: Denoise, unconditional: Denoise, scale: float) -> Denoise:
    """Classifier-free guidance (arXiv 2207.12598) on log-probabilities: u + scale · (c - u). 1 is c alone, 0 is u."""

    def denoise(tokens: Tensor, share: Tensor, select: Tensor) -> Tensor:
        c = conditional(tokens, share, select).log_softmax(-1)
        u = unconditional(tokens, share, select).log_softmax(-1)
        return (u + scale * (c - u)).log_softmax(-1)

    return denoise
