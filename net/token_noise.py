"""Bounds under noise of tokens (net/channels.py), and the two read-outs of a network.

A noised text does not show which of its ids are random, and how far an id is to be trusted depends
on the level t. So the network is told t.

A network has two read-outs at a place i, and they differ:

    posterior       p(x_i | z)              what stood there, given all that stands there now
    leave-one-out   p(x_i | z without z_i)  the same, but the standing token is no evidence

    posterior = softmax(leave-one-out logits + log((a + U/V) / (U/V)) 1[id = z_i])

A [MASK] is no evidence: where it stands, both are equal. The network's logits are the leave-one-out
read-out. The continuous bound is smallest there, and the T-step bound and the sampler at the
posterior. A loss with the wrong read-out is larger than the entropy even for a perfect network.

Let q be q(. | x), and q^ the same under the network: a p(. | z without z_i) + b. The reverse
process leaves z for y at the rate r(z) q(y) / q(z), and the network's at r(z) q^(y) / q^(z). Their
divergence, integrated over t, is the continuous bound:

    h_y = q^(y) / q^(z)        s_y = q(y) / q(z)
    ∫ E r(z) sum over y of [h_y - s_y log h_y + s_y (log s_y - 1)] dt
      = ∫ E r(z) / q(z) [KL(q || q^) + R - log R - 1] dt        R = q(z) / q^(z)

The first line is UDLM's (arXiv 2412.10193), the second GIDD's (arXiv 2503.04482); r(z) / q(z) is
GIDD's weight. The T-step bound is D3PM's (arXiv 2107.03006), with t = k / T and s = t - 1 / T:

    sum over k of E KL(q(z_s | z_t, x) || sum over y p(y | z_t) q(z_s | z_t, y))

Shapes: B rows, L positions, M free positions of all rows, in row-major order, V ids.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion import Denoise, levels_by_row, stratified, sum_by_row
from net.channels import LEAST, SMALL, Channel

PIECE = 1024  # positions whose (PIECE, V) tables are in memory at once, outside of training


def at_places(values: Tensor, free: Tensor) -> Tensor:
    """The value (B,) of the row of each free place: (M,)."""
    return values.to(free.device)[free.nonzero()[:, 0]]


# ---- Two read-outs


def to_posterior(
    channel: Channel, logits: Tensor, standing: Tensor, level: Tensor, sign: int = 1
) -> Tensor:
    """Leave-one-out logits (M, V) -> posterior logits. standing, level: (M,) tokens and levels."""
    said = sign * channel.evidence(standing, level).to(logits.dtype)
    place = standing.clamp(max=logits.shape[-1] - 1)  # a [MASK] says 0, wherever it says it
    return logits.scatter_add(-1, place[:, None], said[:, None])


def to_leave_one_out(channel: Channel, logits: Tensor, standing: Tensor, level: Tensor) -> Tensor:
    """Posterior logits (M, V) -> leave-one-out logits: the inverse of `to_posterior`."""
    return to_posterior(channel, logits, standing, level, sign=-1)


# ---- The continuous bound


def excess(d: Tensor) -> Tensor:
    """e^d - 1 - d."""
    return torch.expm1(d) - d


def rates(
    channel: Channel, logits: Tensor, clean: Tensor, standing: Tensor, level: Tensor
) -> Tensor:
    """The continuous bound's integrand at each place: (M,) nats, with gradient.

    logits: (M, V), leave-one-out. clean, standing: (M,) int64, x and z. level: (M,) float64.
    Its mean over levels and noise, summed over the places of a row, is the row's bound.

    With e_y = log(q^(y) / b(y)) - log(q(y) / b(y)), which is 0 at y = [MASK], the integrand is
    r(z) / q(z) sum over y of q(y) (e^d - 1 - d) at d = e_y - e_z.
    """
    stay, random, mask = channel.shares(level)
    each = random.clamp(min=SMALL) / channel.writable  # b of an id
    is_mask = standing == channel.mask_id
    place = standing.masked_fill(is_mask, 0)[:, None]
    # Logarithms of q / b: near t = 1 these are tiny, and exact. Logarithms of q are not.
    odds = stay / each
    model = torch.log1p(odds.to(logits.dtype)[:, None] * logits.softmax(-1))
    true = torch.zeros_like(model).scatter(
        -1, clean[:, None], torch.log1p(odds).to(logits.dtype)[:, None]
    )
    differences = model - true
    own = differences.gather(-1, place)[:, 0].masked_fill(is_mask, 0.0)
    q = each.to(logits.dtype)[:, None].expand_as(logits)
    q = q.scatter_add(-1, clean[:, None], stay.to(logits.dtype)[:, None])
    at_ids = (q * excess(differences - own[:, None])).sum(-1)
    total = at_ids + mask.to(logits.dtype) * excess(-own)
    # b(z) / q(z): 1 at [MASK], where b is q, and at other ids than x.
    weight = torch.where(standing == clean, each / (each + stay), 1.0)
    return (channel.urgency(standing, level) * weight).to(logits.dtype) * total


def posterior_losses(
    channel: Channel, logits: Tensor, clean: Tensor, standing: Tensor, level: Tensor
) -> tuple[Tensor, Tensor]:
    """-log of the posterior read-out at the clean token, (M,), and whether it is the likeliest.

    As `rates` takes them: leave-one-out logits.
    """
    read = to_posterior(channel, logits, standing, level)
    return F.cross_entropy(read, clean, reduction="none"), read.detach().argmax(-1) == clean


def loss(
    channel: Channel,
    denoise: Denoise,
    tokens: Tensor,
    free: Tensor,
    *,
    rng: torch.Generator,
    weight: str = "bound",
    uniform: Tensor | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """What training minimises, in nats per free token, and plain floats to report.

    tokens: (B, L) int64. free: (B, L) bool. weight: `bound` is the continuous bound; `flat` is the
    plain cross-entropy of the posterior read-out, for optimising only. uniform: (B,) levels in
    [0, 1), such as a slice of one `stratified` draw; None draws them here.
    Reports `nats_per_token` (the bound), `posterior_cross_entropy` and `posterior_accuracy`.
    Raises ValueError for another weight.
    """
    if weight not in ("bound", "flat"):
        raise ValueError(f"weight {weight}")
    if uniform is None:
        uniform = stratified(len(tokens), rng)
    # The plain cross-entropy is no bound: its levels are uniform.
    plain = uniform.clamp(min=LEAST), torch.ones_like(uniform)
    level, counts = channel.levels(uniform) if weight == "bound" else plain
    noised = channel.corrupt(tokens, free, level, rng)
    given = tokens[free], noised[free], at_places(level, free)
    logits = denoise(noised, level.to(tokens.device), free)  # (M, V)
    # The figure that is not minimised needs no gradient, which is as large as the logits.
    with torch.set_grad_enabled(torch.is_grad_enabled() and weight == "bound"):
        terms = rates(channel, logits, *given)
        bound = (terms * at_places(counts, free).to(logits.dtype)).mean()
    with torch.set_grad_enabled(torch.is_grad_enabled() and weight == "flat"):
        nats, hits = posterior_losses(channel, logits, *given)
    flat = nats.mean()
    return {"bound": bound, "flat": flat}[weight], {
        "nats_per_token": bound.item(),
        "posterior_cross_entropy": flat.item(),
        "posterior_accuracy": hits.float().mean().item(),
    }


@torch.no_grad()
def bound_estimates(
    channel: Channel,
    denoise: Denoise,
    tokens: Tensor,
    free: Tensor,
    *,
    rng: torch.Generator,
    draws: int = 8,
) -> list[dict[str, Tensor]]:
    """`draws` estimates of every row's continuous bound, with stratified levels in each row.

    Returns a dict per draw, as `diffusion.bound_estimates`. Here every free token is guessed, by
    the posterior read-out, and counts dt/du: then the means are those of uniform levels.
    """
    estimates = []
    for uniform in levels_by_row(len(tokens), draws, rng):
        level, counts = channel.levels(uniform)
        noised = channel.corrupt(tokens, free, level, rng)
        logits = denoise(noised, level.to(tokens.device), free)
        nats, cross_entropy, hits = [], [], []
        table = (logits, tokens[free], noised[free], at_places(level, free))
        for piece in zip(*(part.split(PIECE) for part in table), strict=True):
            nats.append(rates(channel, *piece))
            losses, right = posterior_losses(channel, *piece)
            cross_entropy.append(losses)
            hits.append(right)
        estimate = {
            "nats": sum_by_row(torch.cat(nats), free) * counts,
            "share": level,
            "masked": free.sum(1).cpu() * counts,
            "cross_entropy": sum_by_row(torch.cat(cross_entropy), free) * counts,
            "hits": sum_by_row(torch.cat(hits), free) * counts,
        }
        estimates.append(estimate)
    return estimates


# ---- T steps


def reverse_law(
    channel: Channel, posterior: Tensor, standing: Tensor, before: Tensor, now: Tensor
) -> Tensor:
    """p(z_s | z_t), the mixture of q(z_s | z_t, x) over x from the posterior: (M, V + 1) float64.

    Column V is [MASK]. posterior: (M, V) float64 probabilities. standing: (M,) tokens z_t. before,
    now: (M,) the levels s < t. At s = 0 the law is the posterior itself.
    """
    writable = channel.writable
    is_mask = (standing == channel.mask_id)[:, None]
    place = standing.masked_fill(is_mask[:, 0], writable)
    there = F.one_hot(place, writable + 1).double()
    old, new = (
        [share[:, None] for share in channel.shares(level.double())] for level in (before, now)
    )
    stays = new[0] / old[0]  # a_t / a_s
    # q(z_t | z_s): a jump between s and t comes from anywhere.
    jumped = torch.where(is_mask, new[2] - stays * old[2], (new[1] - stays * old[1]) / writable)
    step = stays * there + jumped
    each = new[1].clamp(min=SMALL) / writable
    weight = posterior / torch.where(is_mask, new[2], new[0] * there[:, :writable] + each)
    # Sum over x of p(x | z_t) / q(z_t | x) q(z_s | x).
    total = weight.sum(-1, keepdim=True)
    mixed = torch.cat([old[0] * weight + old[1] / writable * total, old[2] * total], -1)
    return step * mixed


def step_losses(
    channel: Channel,
    posterior: Tensor,
    clean: Tensor,
    standing: Tensor,
    before: Tensor,
    now: Tensor,
) -> Tensor:
    """KL(q(z_s | z_t, x) || p(z_s | z_t)) at each place, (M,) nats; at s = 0 it is -log p(x | z).

    As `reverse_law` takes them. clean: (M,) tokens x.
    """
    certain = F.one_hot(clean, posterior.shape[-1]).double()
    true = reverse_law(channel, certain, standing, before, now)
    model = reverse_law(channel, posterior, standing, before, now)
    # 0 log 0 = 0: at s = 0 the true law is certain.
    return (torch.xlogy(true, true) - torch.xlogy(true, model)).sum(-1)


@torch.no_grad()
def step_bounds(
    channel: Channel,
    denoise: Denoise,
    tokens: Tensor,
    free: Tensor,
    *,
    steps: int,
    rng: torch.Generator,
    draws: int = 8,
) -> Tensor:
    """An unbiased estimate of each row's T-step bound, from `draws` of its T terms: (B,) float64.

    steps: T. At t = 1 all is noise, which is where the sampler starts, so no further term is left.
    """
    total = torch.zeros(len(tokens), dtype=torch.float64)
    for uniform in levels_by_row(len(tokens), draws, rng):
        number = torch.floor(uniform * steps).clamp(max=steps - 1)
        level = (number + 1) / steps
        noised = channel.corrupt(tokens, free, level, rng)
        logits = denoise(noised, level.to(tokens.device), free).double()
        times = at_places(number / steps, free), at_places(level, free)
        table = (logits, tokens[free], noised[free], *times)
        nats = []
        for piece, clean, standing, earlier, now in zip(
            *(part.split(PIECE) for part in table), strict=True
        ):
            posterior = to_posterior(channel, piece, standing, now).softmax(-1)
            nats.append(step_losses(channel, posterior, clean, standing, earlier, now))
        total += sum_by_row(torch.cat(nats), free) * steps / draws
    return total
