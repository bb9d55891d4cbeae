"""Masked (absorbing) diffusion: schedules, masks and the bound. It takes a function, never a model.

Time t runs from 0 (clean) to 1 (all [MASK]). alpha(t) is the probability that a token is still
there. A denoiser is any function `Denoise`. It is told the masked share of a row's free tokens, not
the time, so one network serves every schedule.

The quantity everywhere is the negative evidence lower bound in nats. For a row of n free tokens:

    bound(x) = c_1 + ... + c_n
    c_k      = mean -log p of a masked token, over all masks of exactly k free tokens

Every schedule gives the same number (Kingma et al. 2021, arXiv 2107.00630; Sahoo et al. 2024,
arXiv 2406.07524, eq. 10; Ou et al. 2024, arXiv 2406.03736), because any alpha gives a mask of k
tokens the weight ∫ -alpha'/(1-alpha) (1-alpha)^k alpha^(n-k) dt = 1/(k C(n, k)).

Shapes: B rows, L positions, M masked positions of all rows, in row-major order, V' ids that can be
written. *Free* positions may be masked; the others are given, or padding.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

CLIPPED_WEIGHT = 5.0  # the most that a masked token weighs in the `clipped` loss
SMALLEST = 2**-53  # the step between float64 numbers just below 1


class Denoise(Protocol):
    """tokens (B, L) int64, share (B,) in [0, 1], select (B, L) bool -> logits (M, V').

    A function that is bound to B rows also takes n·B rows: n neighbours of row 0, then of row 1.
    """

    def __call__(self, tokens: Tensor, share: Tensor, select: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class Schedule:
    """How alpha falls from 1 to 0.

    linear: 1 - t. polynomial: 1 - t². cosine: 1 - cos(π/2 (1 - t)) (MD4, arXiv 2406.04329).
    """

    name: str = "linear"
    power: float = 2.0

    def alpha(self, t: Tensor) -> Tensor:
        """Probability that a token is still there at time t; float64 in and out."""
        if self.name == "cosine":
            return 1 - torch.cos(math.pi / 2 * (1 - t))
        if self.name == "linear":
            return 1 - t
        return 1 - t**self.power

    def rate(self, t: Tensor) -> Tensor:
        """-alpha'(t) / (1 - alpha(t)), a masked token's weight in the bound. Infinite at t = 0."""
        if self.name == "cosine":
            return math.pi / 2 * torch.tan(math.pi / 2 * (1 - t))
        power = 1.0 if self.name == "linear" else self.power
        return power / t


def stratified(count: int, rng: torch.Generator) -> Tensor:
    """`count` numbers in [0, 1), one in each of `count` equal strata, shuffled: (count,) float64.

    Each number alone is uniform. Together they cover the range, so the loss varies less.
    """
    shift = torch.rand((), generator=rng, dtype=torch.float64)
    order = torch.randperm(count, generator=rng)
    # Close to 1 the quotient may round up to 1, which is not a noise level.
    return ((order + shift) / count).clamp_(max=1 - SMALLEST)


def levels_by_row(rows: int, draws: int, rng: torch.Generator) -> list[Tensor]:
    """For each of `draws` estimates a number in [0, 1) per row: (rows,) float64 each.

    Draw i takes its numbers from stratum i, so the mean of all draws varies less.
    """
    shift = torch.rand(rows, generator=rng, dtype=torch.float64)
    return [(draw + shift) / draws for draw in range(draws)]


def levels_of(free: Tensor, rng: torch.Generator) -> Tensor:
    """Stratified over the rows with a free token, 0 for the others: (N, n) bool -> (N,) float64.

    A row is a text, a block of a text (net/blocks.py), or a turn of a dialogue (net/turns.py).
    """
    to_noise = free.any(1).cpu()
    uniform = torch.zeros(len(to_noise), dtype=torch.float64)
    uniform[to_noise] = stratified(int(to_noise.sum()), rng)
    return uniform


@dataclass
class Corruption:
    """Masked rows. masked: (B, L) bool. share: (B,) of the free tokens, float64.

    weight: (B,) float64, what -log p of each of the row's masked tokens counts in the bound.
    """

    masked: Tensor
    share: Tensor
    weight: Tensor

    def token_weight(self) -> Tensor:
        """The weight of each masked token: (M,) float64."""
        row = self.masked.nonzero()[:, 0]
        return self.weight[row]


def mask_exactly(free: Tensor, counts: Tensor, rng: torch.Generator) -> Tensor:
    """A random mask of counts[b] of row b's free positions, all equally likely: (B, L) bool."""
    # Drawn on the CPU, so that a GPU trains on the same masks.
    score = torch.rand(free.shape, generator=rng, dtype=torch.float64)
    score = score.to(free.device).masked_fill_(~free, 2.0)  # behind every free position
    rank = score.argsort(1).argsort(1)  # 0 for the smallest score of the row
    return rank < counts.to(free.device)[:, None]


def corrupt(
    free: Tensor, uniform: Tensor, rng: torch.Generator, estimator: str = "count"
) -> Corruption:
    """Mask free positions (B, L) at the noise levels `uniform` (B,) in [0, 1).

    Whatever the estimator, the mean over masks of weight · (sum of -log p) is the row's bound.

    count: exactly k = 1 + floor(uniform · n) of n free tokens, each with the weight n/k. It needs
        no clamp near t = 0, and a constant -log p gives a constant loss.
    linear, cosine, polynomial: the schedule of this name at t = uniform. Each token is masked on
        its own, with probability 1 - alpha(t) and weight -alpha'/(1 - alpha).
    """
    n = free.sum(1).cpu().double()
    if estimator == "count":
        k = torch.floor(uniform * n).long() + 1
        k = torch.minimum(k, n.long())  # rounding may reach n + 1; a row may have no free token
        masked = mask_exactly(free, k, rng)
        share = k / n.clamp(min=1)
        weight = n / k.clamp(min=1)
    else:
        schedule = Schedule(estimator)
        t = uniform.clamp(min=SMALLEST)  # at 0 the weight would be infinite
        draw = torch.rand(free.shape, generator=rng, dtype=torch.float64)
        hidden = draw < 1 - schedule.alpha(t)[:, None]
        masked = hidden.to(free.device) & free
        share = masked.sum(1).cpu() / n.clamp(min=1)
        weight = schedule.rate(t)
    return Corruption(masked, share.to(free.device), weight.to(free.device))


def opposite_masks(free: Tensor, uniform: Tensor, rng: torch.Generator) -> list[Corruption]:
    """A mask and its complement, so each token is supervised once (LaViDa, arXiv 2505.16839).

    The number k of masked tokens is uniform on 0 .. n for both masks. Each mask carries half of the
    weight (n + 1)/k, so their sum is unbiased for the bound.
    """
    n = free.sum(1).cpu()
    k = torch.floor(uniform * (n + 1).double()).long()
    mask = mask_exactly(free, k, rng)
    both = []
    for masked, count in ((mask, k), (free & ~mask, n - k)):
        share = count / n.clamp(min=1)
        weight = ((n + 1) / (2.0 * count.clamp(min=1))).double()
        both.append(Corruption(masked, share.to(free.device), weight.to(free.device)))
    return both


def corruptions(
    free: Tensor, uniform: Tensor, rng: torch.Generator, estimator: str, complementary: bool
) -> list[Corruption]:
    """What the loss averages over: a corruption, or a mask and its complement."""
    if not complementary:
        return [corrupt(free, uniform, rng, estimator)]
    if estimator != "count":
        raise ValueError("complementary masks need the count estimator")
    return opposite_masks(free, uniform, rng)


def masked_losses(
    denoise: Denoise,
    tokens: Tensor,
    masked: Tensor,
    share: Tensor,
    mask_id: int,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """-log p of each masked token, (M,) nats with gradient, and whether it is the likeliest, (M,).

    label_smoothing: the share of the target that is spread over the vocabulary (arXiv 1512.00567,
    section 7), for optimising only.
    """
    noised, target = tokens.masked_fill(masked, mask_id), tokens[masked]
    # A denoiser may compute losses without all logits at once (net/kernels.py).
    losses = getattr(denoise, "losses", None)
    if losses is not None and not label_smoothing:
        return losses(noised, share, masked, target)
    # Logits of the masked positions alone: the output matrix is a large part of the work.
    logits = denoise(noised, share, masked)  # (M, V')
    nats = F.cross_entropy(logits, target, reduction="none", label_smoothing=label_smoothing)
    hits = logits.detach().argmax(-1) == target
    return nats, hits


def weigh(
    nats: Tensor, token_weight: Tensor, free: int | Tensor, weight: str
) -> tuple[Tensor, dict[str, float]]:
    """The loss from -log p of the masked tokens (M,), and the figures that are reported with it.

    token_weight: (M,) their weights in the bound. free: the number of free tokens. weight: as in
    `loss`.
    """
    bound = (nats * token_weight).sum() / free
    flat = nats.sum() / max(1, len(nats))  # a schedule may mask nothing at all
    # Rare masks of few tokens weigh most, so the cap lowers the variance, and biases the bound.
    clipped = (nats * token_weight.clamp(max=CLIPPED_WEIGHT)).sum() / free
    value = {"bound": bound, "clipped": clipped, "flat": flat}[weight]
    return value, {"nats_per_token": bound.item(), "masked_cross_entropy": flat.item()}


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
) -> tuple[Tensor, dict[str, float]]:
    """What training minimises, in nats per free token, and plain floats to report.

    tokens: (B, L) int64. free: (B, L) bool, at least one per row. estimator: as in `corrupt`.
    weight: `bound` is the bound itself. Two others are for optimising only: `clipped` lets a masked
        token weigh at most 5, `flat` is the plain mean over masked tokens.
    complementary: use a mask and its opposite (estimator `count` only; ValueError with another).
    uniform: (B,) noise levels, such as a slice of one `stratified` draw; None draws them here.
    Reports `nats_per_token` (the bound), `masked_cross_entropy` and `masked_accuracy`.
    """
    if uniform is None:
        uniform = stratified(len(tokens), rng)
    nats, hits, weights = [], [], []
    for rows in corruptions(free, uniform, rng, estimator, complementary):
        row_nats, row_hits = masked_losses(
            denoise, tokens, rows.masked, rows.share, mask_id, label_smoothing
        )
        nats.append(row_nats)
        hits.append(row_hits)
        weights.append(rows.token_weight())

    # The weights are float64, the nats float32: so is the loss.
    token_weight = torch.cat(weights).float()
    value, report = weigh(torch.cat(nats), token_weight, free.sum(), weight)
    accuracy = torch.cat(hits).sum().item() / max(1, len(token_weight))
    return value, {**report, "masked_accuracy": accuracy}


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
) -> list[dict[str, Tensor]]:
    """`draws` unbiased estimates of every row's bound, with stratified noise levels in each row.

    Returns a dict per draw of (B,) tensors on the CPU. `nats`: the row's bound. `share`, `masked`:
    of its tokens, how many are masked. `cross_entropy`, `hits`: sums over its masked tokens of
    -log p and of right guesses.
    """
    estimates = []
    for uniform in levels_by_row(len(tokens), draws, rng):
        rows = corrupt(free, uniform, rng, estimator)
        nats, hits = masked_losses(denoise, tokens, rows.masked, rows.share, mask_id)
        cross_entropy = sum_by_row(nats, rows.masked)
        estimate = {
            "nats": cross_entropy * rows.weight.cpu(),
            "share": rows.share.cpu(),
            "masked": rows.masked.sum(1).cpu(),
            "cross_entropy": cross_entropy,
            "hits": sum_by_row(hits, rows.masked),
        }
        estimates.append(estimate)
    return estimates


@torch.no_grad()
def bounds_of_one_length(
    denoise: Denoise, tokens: Tensor, free: Tensor, mask_id: int, draws: int, seed: int
) -> Tensor:
    """The bound of each row of tokens (m, L), over `draws` noise levels: (m,) float64 on the CPU.

    free: (1, L) bool, the positions that are masked and counted. The levels are stratified: one in
    each of `draws` equal parts of [0, 1], all shifted by the same random number. All rows meet the
    same levels and masks, so that they can be compared.
    """
    rows = len(tokens)
    rng = torch.Generator().manual_seed(seed)
    result = torch.zeros(rows, dtype=torch.float64)
    for uniform in levels_by_row(1, draws, rng):
        corrupted = corrupt(free, uniform, rng)
        masked = corrupted.masked.expand(rows, -1)
        share = corrupted.share.expand(rows)
        nats, _ = masked_losses(denoise, tokens, masked, share, mask_id)
        per_row = nats.view(rows, -1).sum(1).double()
        result += (per_row * corrupted.weight / draws).cpu()
    return result


def sum_by_row(values: Tensor, where: Tensor) -> Tensor:
    """Sum the values (M,) of the positions `where` (B, L) by row: (B,) float64 on the CPU."""
    row = where.nonzero()[:, 0].cpu()
    total = torch.zeros(len(where), dtype=torch.float64)
    return total.index_add_(0, row, values.double().cpu())


def guide(conditional: Denoise, unconditional: Denoise, scale: float) -> Denoise:
    """Classifier-free guidance (arXiv 2207.12598) on log-probabilities: u + scale · (c - u).

    Scale 1 is the conditional model alone, scale 0 the unconditional model.
    """

    def denoise(tokens: Tensor, share: Tensor, select: Tensor) -> Tensor:
        c = conditional(tokens, share, select).log_softmax(-1)
        u = unconditional(tokens, share, select).log_softmax(-1)
        # What can never be written is at minus infinity under both, and stays there.
        change = (c - u).masked_fill(u == -math.inf, 0.0)
        return (u + scale * change).log_softmax(-1)  # normalised again

    return denoise
