"""Uniform noise: a noised token is replaced by a random id, where masked diffusion writes [MASK].

At time t each free token x becomes z, on its own, with alpha(t) = 1 - t = a. V ids can be written:

    q(z | x) = a 1[z = x] + (1 - a) / V

[MASK], [PAD] and [BOS] lie at or above V, so they never occur in noised text. A noised text does
not show how much of it is noise, so the network is told t, the share of noise.

A network has two read-outs at a place i, and they differ:

    posterior       p(x_i | z)              what stood there, given all that stands there now
    leave-one-out   p(x_i | z without z_i)  the same, but the standing token is no evidence

    posterior = softmax(leave-one-out logits + log((a V + 1 - a) / (1 - a)) 1[id = z_i])

The network's logits are the leave-one-out read-out. The continuous bound is smallest there, and
the T-step bound and the sampler at the posterior. A loss with the wrong read-out is larger than the
entropy even for a perfect network. Masks are no evidence, so under masks both are equal.

With s_y = q(y | x) / q(z | x), h_y the same ratio under the network, and beta = 1 / (a V):

    continuous bound  ∫ beta E sum over y of [h_y - s_y log h_y + s_y (log s_y - 1)] dt
                      (UDLM, arXiv 2412.10193; Duo, arXiv 2506.10892)
    T-step bound      sum over k of E KL(q(z_s | z_t, x) || sum over y p(y | z_t) q(z_s | z_t, y))
                      with t = k / T and s = t - 1 / T (D3PM, arXiv 2107.03006)

Shapes: B rows, L positions, M free positions of all rows, in row-major order, V ids.
"""

import dataclasses
from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor

from base.config import ModelConfig, SampleConfig
from base.files import UserError
from diffusion import Denoise, Schedule, stratified, sum_by_row
from net.draws import distribution, draw_uniforms, log_prob_of, pick
from net.samplers import Sample

# The least share of noise. Below it, ratios of probabilities leave the range of float32. Levels in
# [0, LEAST) count as LEAST: they are a millionth of all levels.
LEAST = 1e-6
PIECE = 1024  # positions whose (PIECE, V) tables are in memory at once, outside of training


# ---- Noise


def corrupt(
    tokens: Tensor, free: Tensor, share: Tensor, rng: torch.Generator, writable: int
) -> Tensor:
    """Replace free tokens (B, L) by random ids below `writable`, with probability share (B,).

    A token may be replaced by itself. Given positions keep their tokens. share: on the CPU.
    """
    # Drawn on the CPU, so that a GPU trains on the same noise.
    coin = torch.rand(free.shape, generator=rng, dtype=torch.float64)
    other = torch.randint(writable, free.shape, generator=rng)
    replaced = (coin < share[:, None]).to(free.device) & free
    return torch.where(replaced, other.to(tokens.device), tokens)


def at_places(values: Tensor, free: Tensor) -> Tensor:
    """The value (B,) of the row of each free place: (M,)."""
    return values.to(free.device)[free.nonzero()[:, 0]]


def bound_levels(uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Levels t (B,) float64 from numbers in [0, 1), and what each counts, for the bound.

    t = u² counts dt/du = 2 u. Near t = 0 a replaced token has a rate of about log(1/t) / t. With
    levels that are uniform in t, the variance would grow without end as LEAST falls.
    """
    return uniform.square().clamp(min=LEAST), 2 * uniform


# ---- Two read-outs


def evidence(share: Tensor, writable: int) -> Tensor:
    """log((a V + 1 - a) / (1 - a)) with a = 1 - share: what the standing token says for itself."""
    return torch.log1p((1 - share) * writable / share)


def to_posterior(logits: Tensor, standing: Tensor, share: Tensor) -> Tensor:
    """Leave-one-out logits (M, V) -> posterior logits. standing, share: (M,), tokens and levels."""
    said = evidence(share, logits.shape[-1]).to(logits.dtype)
    return logits.scatter_add(-1, standing[:, None], said[:, None])


def to_leave_one_out(logits: Tensor, standing: Tensor, share: Tensor) -> Tensor:
    """Posterior logits (M, V) -> leave-one-out logits: the inverse of `to_posterior`."""
    said = evidence(share, logits.shape[-1]).to(logits.dtype)
    return logits.scatter_add(-1, standing[:, None], -said[:, None])


# ---- The continuous bound


def rates(logits: Tensor, clean: Tensor, standing: Tensor, share: Tensor) -> Tensor:
    """The continuous bound's integrand at each place: (M,) nats, with gradient.

    logits: (M, V), leave-one-out. clean, standing: (M,) int64, x and z. share: (M,) float64.
    Its mean over levels and noise, summed over the places of a row, is the row's bound.
    """
    writable = logits.shape[-1]
    odds = (1 - share) * writable / share  # a V / (1 - a)
    # Logarithms of V q / (1 - a): near t = 1 these are tiny, and exact. Logarithms of q are not.
    model = torch.log1p(odds.to(logits.dtype)[:, None] * logits.softmax(-1))
    true = torch.zeros_like(model).scatter(
        -1, clean[:, None], torch.log1p(odds).to(logits.dtype)[:, None]
    )
    log_h = model - model.gather(-1, standing[:, None])
    log_s = true - true.gather(-1, standing[:, None])
    # h - s log h + s (log s - 1) = s (e^d - 1 - d) with d = log h - log s. It is 0 at y = z.
    d = log_h - log_s
    terms = log_s.exp() * (torch.expm1(d) - d)
    return terms.sum(-1) / ((1 - share) * writable).to(logits.dtype)


def posterior_losses(
    logits: Tensor, clean: Tensor, standing: Tensor, share: Tensor
) -> tuple[Tensor, Tensor]:
    """-log of the posterior read-out at the clean token, (M,), and whether it is the likeliest.

    As `rates` takes them: leave-one-out logits.
    """
    read = to_posterior(logits, standing, share)
    return F.cross_entropy(read, clean, reduction="none"), read.detach().argmax(-1) == clean


def loss(
    denoise: Denoise,
    tokens: Tensor,
    free: Tensor,
    *,
    writable: int,
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
    share, counts = bound_levels(uniform) if weight == "bound" else plain
    noised = corrupt(tokens, free, share, rng, writable)
    given = tokens[free], noised[free], at_places(share, free)
    logits = denoise(noised, share.to(tokens.device), free)  # (M, V)
    # The figure that is not minimised needs no gradient, which is as large as the logits.
    with torch.set_grad_enabled(torch.is_grad_enabled() and weight == "bound"):
        bound = (rates(logits, *given) * at_places(counts, free).to(logits.dtype)).mean()
    with torch.set_grad_enabled(torch.is_grad_enabled() and weight == "flat"):
        nats, hits = posterior_losses(logits, *given)
    flat = nats.mean()
    return {"bound": bound, "flat": flat}[weight], {
        "nats_per_token": bound.item(),
        "posterior_cross_entropy": flat.item(),
        "posterior_accuracy": hits.float().mean().item(),
    }


@torch.no_grad()
def bound_estimates(
    denoise: Denoise,
    tokens: Tensor,
    free: Tensor,
    *,
    writable: int,
    rng: torch.Generator,
    draws: int = 8,
) -> list[dict[str, Tensor]]:
    """`draws` estimates of every row's continuous bound, with stratified levels in each row.

    Returns a dict per draw, as `diffusion.bound_estimates`. Here every free token is guessed, by
    the posterior read-out, and counts 2 u: then the means are those of uniform levels.
    """
    shift = torch.rand(len(tokens), generator=rng, dtype=torch.float64)
    estimates = []
    for draw in range(draws):
        share, counts = bound_levels((draw + shift) / draws)
        noised = corrupt(tokens, free, share, rng, writable)
        logits = denoise(noised, share.to(tokens.device), free)
        nats, cross_entropy, hits = [], [], []
        table = (logits, tokens[free], noised[free], at_places(share, free))
        for piece in zip(*(part.split(PIECE) for part in table), strict=True):
            nats.append(rates(*piece))
            losses, right = posterior_losses(*piece)
            cross_entropy.append(losses)
            hits.append(right)
        estimate = {
            "nats": sum_by_row(torch.cat(nats), free) * counts,
            "share": share,
            "masked": free.sum(1).cpu() * counts,
            "cross_entropy": sum_by_row(torch.cat(cross_entropy), free) * counts,
            "hits": sum_by_row(torch.cat(hits), free) * counts,
        }
        estimates.append(estimate)
    return estimates


# ---- T steps


def reverse_law(posterior: Tensor, standing: Tensor, before: Tensor, now: Tensor) -> Tensor:
    """p(z_s | z_t), the mixture of q(z_s | z_t, x) over x from the posterior: (M, V) float64.

    posterior: (M, V) float64 probabilities. standing: (M,) tokens z_t. before, now: (M,) the levels
    s < t. At s = 0 the law is the posterior itself.
    """
    writable = posterior.shape[-1]
    before, now = before.double()[:, None], now.double()[:, None]
    stays = (1 - now) / (1 - before)  # a_t / a_s
    there = F.one_hot(standing, writable).double()
    step = stays * there + (1 - stays) / writable  # q(z_t | z_s)
    weight = posterior / ((1 - now) * there + now / writable)  # p(x | z_t) / q(z_t | x)
    mixed = (1 - before) * weight + before / writable * weight.sum(-1, keepdim=True)
    return step * mixed


def step_losses(
    posterior: Tensor, clean: Tensor, standing: Tensor, before: Tensor, now: Tensor
) -> Tensor:
    """KL(q(z_s | z_t, x) || p(z_s | z_t)) at each place, (M,) nats; at s = 0 it is -log p(x | z).

    As `reverse_law` takes them. clean: (M,) tokens x.
    """
    certain = F.one_hot(clean, posterior.shape[-1]).double()
    true = reverse_law(certain, standing, before, now)
    model = reverse_law(posterior, standing, before, now)
    # 0 log 0 = 0: at s = 0 the true law is certain.
    return (torch.xlogy(true, true) - torch.xlogy(true, model)).sum(-1)


@torch.no_grad()
def step_bounds(
    denoise: Denoise,
    tokens: Tensor,
    free: Tensor,
    *,
    steps: int,
    writable: int,
    rng: torch.Generator,
    draws: int = 8,
) -> Tensor:
    """An unbiased estimate of each row's T-step bound, from `draws` of its T terms: (B,) float64.

    steps: T. At t = 1 all is noise, which is where the sampler starts, so no further term is left.
    """
    shift = torch.rand(len(tokens), generator=rng, dtype=torch.float64)
    total = torch.zeros(len(tokens), dtype=torch.float64)
    for draw in range(draws):
        number = torch.floor((draw + shift) / draws * steps).clamp(max=steps - 1)
        share = (number + 1) / steps
        noised = corrupt(tokens, free, share, rng, writable)
        logits = denoise(noised, share.to(tokens.device), free).double()
        times = at_places(number / steps, free), at_places(share, free)
        table = (logits, tokens[free], noised[free], *times)
        nats = []
        for piece, clean, standing, earlier, now in zip(
            *(part.split(PIECE) for part in table), strict=True
        ):
            posterior = to_posterior(piece, standing, now).softmax(-1)
            nats.append(step_losses(posterior, clean, standing, earlier, now))
        total += sum_by_row(torch.cat(nats), free) * steps / draws
    return total


# ---- The sampler


def settings_of(
    config: ModelConfig, settings: SampleConfig, given: Collection[str] = ()
) -> SampleConfig:
    """The settings that a network samples with: uniform noise has one sampler, `ancestral`.

    given: the names of the settings that the user gave. Raises UserError as `check` does.
    """
    if config.noise == "absorbing":
        return settings
    check_parts(settings)  # first: --speculate does not go with the sampler below
    if "sampler" not in given:
        settings = dataclasses.replace(settings, sampler="ancestral")
    check(settings)
    return settings


def check(settings: SampleConfig) -> None:
    """Raise UserError for settings that reveal masks, of which uniform noise has none."""
    if settings.sampler != "ancestral":
        raise UserError(
            f"--sampler {settings.sampler} for a network of uniform noise",
            "ancestral: the other samplers reveal masks",
            "leave out --sampler, or name a checkpoint of train.py --noise absorbing",
        )
    check_parts(settings)


def check_parts(settings: SampleConfig) -> None:
    """Raise UserError for what samplers add to revealing masks."""
    for name in ("block_size", "speculate", "carry", "revise", "recheck"):
        if getattr(settings, name):
            raise UserError(
                f"--{name} for a network of uniform noise",
                "a sampler of whole texts without masks",
                f"leave out --{name}",
            )


def levels(settings: SampleConfig) -> list[float]:
    """The shares of noise of a sampler's calls, from 1 to 0: one more than its calls."""
    t = torch.arange(settings.steps, -1, -1, dtype=torch.float64) / settings.steps
    share = 1 - Schedule(settings.schedule).alpha(t)
    return [1.0, *share[1:-1].tolist(), 0.0]  # exact ends: the cosine's are rounded


@torch.no_grad()
def sample(
    denoise: Denoise,
    tokens: Tensor,
    settings: SampleConfig,
    *,
    mask_id: int,
    writable: int,
    rngs: list[torch.Generator],
    keep_frames: bool = False,
) -> Sample:
    """Write at every [MASK] of `tokens` (B, L) int64. All other tokens are given and never change.

    The places begin with random ids. Each of settings.steps calls draws all of them again by
    `reverse_law`. temperature and top_p act on the posterior read-out. With both at 1 and a perfect
    network, the last text of a single place has the law of the data, whatever the steps. Several
    places are drawn independently in a call, so there more steps are closer to the law.

    The network cannot see that given tokens are no noise: text around them is an approximation.

    rngs: a CPU generator per row. In the trace, `step` is the last call that changed a place, and
    `log_prob` is the posterior's in the last call: its sum is no likelihood of the text.
    Raises UserError as `check` does.
    """
    check(settings)
    free = tokens == mask_id
    start = (draw_uniforms(free, rngs) * writable).long().clamp(max=writable - 1)
    text = torch.where(free, start, tokens)
    step = free.long()
    log_prob = torch.zeros(tokens.shape, dtype=torch.float64, device=tokens.device)
    frames = []
    shares = levels(settings)
    for number in range(settings.steps):
        now, before = shares[number], shares[number + 1]
        share = torch.full((len(text),), now, dtype=torch.float64, device=text.device)
        logits = denoise(text, share, free)
        uniform = draw_uniforms(free, rngs)[free]
        token, nats = draw(logits, text[free], before, now, uniform, settings)
        changed = torch.zeros_like(free).masked_scatter(free, token != text[free])
        step[changed] = number + 1
        text[free], log_prob[free] = token, nats
        if keep_frames:
            frames.append(text.clone())
    calls = settings.steps if bool(free.any()) else 0
    used = free.any(1).long().cpu() * settings.steps
    return Sample(text, step.cpu(), log_prob.float().cpu(), calls, used, used.clone(), frames)


def draw(
    logits: Tensor,
    standing: Tensor,
    before: float,
    now: float,
    uniform: Tensor,
    settings: SampleConfig,
) -> tuple[Tensor, Tensor]:
    """Tokens (M,) of the level `before`, and their posterior log-probabilities (M,) float64.

    logits: (M, V), leave-one-out. standing: (M,) tokens of the level `now`. uniform: (M,) float64.
    """
    tokens, nats = [standing[:0]], [uniform[:0]]
    table = (logits, standing, uniform)
    for piece, there, point in zip(*(part.split(PIECE) for part in table), strict=True):
        later, earlier = torch.full_like(point, now), torch.full_like(point, before)
        read = to_posterior(piece.double(), there, later)
        posterior = distribution(read, settings.temperature, settings.top_p)
        token = pick(reverse_law(posterior, there, earlier, later), point)
        tokens.append(token)
        nats.append(log_prob_of(read, token))
    return torch.cat(tokens), torch.cat(nats)
