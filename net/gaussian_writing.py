"""The sampler of networks that learnt Gaussian noise on codes (net/gaussian_noise.py).

Each call but the last moves every z to an earlier level s, by the law q(z_s | z_t, e) at the guess
e^ of the code (DDPM, arXiv 2006.11239; VDM, arXiv 2107.00630, in gamma = -log SNR):

    c = 1 - exp(gamma_s - gamma_t)
    z_s = alpha_s / alpha_t ((1 - c) z_t + c alpha_t e^) + sigma_s sqrt(c) eps

The last call reads the tokens from the posterior at the last level, t = 0.
"""

import torch
from torch import Tensor

from base.config import SampleConfig
from diffusion import Schedule
from net.draws import distribution, draw_normals, draw_tokens, draw_uniforms
from net.gaussian_noise import GaussianDenoise, gamma, scales, to_posterior
from net.samplers import Sample
from net.token_noise import PIECE


def levels(settings: SampleConfig) -> list[float]:
    """The noise levels of a sampler's calls, from 1 to 0. A single call reads at level 1."""
    moves = settings.steps - 1
    if not moves:
        return [1.0]
    t = torch.arange(moves, -1, -1, dtype=torch.float64) / moves
    level = 1 - Schedule(settings.schedule).alpha(t)
    return [1.0, *level[1:-1].tolist(), 0.0]  # exact ends: the cosine's are rounded


def step(z: Tensor, guess: Tensor, before: float, now: float, normal: Tensor) -> Tensor:
    """z of the level `before`, from z of the level `now`, the guess of the code, noise: (M, d)."""
    times = torch.tensor([before, now], dtype=torch.float64)
    old, new = gamma(times).tolist()
    (alpha_s, alpha_t), (sigma_s, _) = (part.tolist() for part in scales(times))
    c = -torch.expm1(torch.tensor(old - new, dtype=torch.float64)).item()
    mean = alpha_s / alpha_t * ((1 - c) * z + c * alpha_t * guess)
    return mean + sigma_s * c**0.5 * normal


def guesses(
    logits: Tensor, codes: Tensor, z: Tensor, now: float, settings: SampleConfig
) -> tuple[Tensor, Tensor]:
    """The guesses of codes, (M, d), and the likeliest tokens, (M,). logits: (M, V)."""
    means, likeliest = [z[:0]], [torch.zeros(0, dtype=torch.long, device=z.device)]
    for piece, there in zip(logits.split(PIECE), z.split(PIECE), strict=True):
        level = torch.full((len(there),), now, dtype=torch.float64, device=z.device)
        read = to_posterior(piece.double(), codes, there, level)
        means.append(distribution(read, settings.temperature, settings.top_p) @ codes)
        likeliest.append(read.argmax(-1))
    return torch.cat(means), torch.cat(likeliest)


def read_tokens(
    logits: Tensor, codes: Tensor, z: Tensor, now: float, uniform: Tensor, settings: SampleConfig
) -> tuple[Tensor, Tensor]:
    """Tokens from the posterior, (M,), and their log-probabilities, (M,) float64."""
    tokens, nats = [torch.zeros(0, dtype=torch.long, device=z.device)], [uniform[:0]]
    table = (logits, z, uniform)
    for piece, there, point in zip(*(part.split(PIECE) for part in table), strict=True):
        read = to_posterior(piece.double(), codes, there, torch.full_like(point, now))
        token, chance = draw_tokens(read, point, settings.temperature, settings.top_p)
        tokens.append(token)
        nats.append(chance)
    return torch.cat(tokens), torch.cat(nats)


@torch.no_grad()
def sample(
    denoise: GaussianDenoise,
    codes: Tensor,
    tokens: Tensor,
    settings: SampleConfig,
    *,
    mask_id: int,
    rngs: list[torch.Generator],
    keep_frames: bool = False,
) -> Sample:
    """Write at every [MASK] of `tokens` (B, L) int64. All other tokens are given and never change.

    codes: (V, d). Of settings.steps calls the last reads the tokens. More calls are closer to the
    law of the data. temperature and top_p act on the posterior, in every call. Given tokens are
    read as they are, without noise.

    rngs: a CPU generator per row. Frames show the likeliest tokens. In the trace, `step` is the
    last call that changed the likeliest token, and `log_prob` is the posterior's in the last call:
    its sum is no likelihood of the text.
    """
    free, codes = tokens == mask_id, codes.double()
    z = draw_normals(free, codes.shape[-1], rngs)
    text, changed_at = tokens.clone(), free.long()
    log_prob = torch.zeros(tokens.shape, dtype=torch.float64, device=tokens.device)
    frames, times = [], levels(settings)
    for number, now in enumerate(times, 1):
        level = torch.full((len(text),), now, dtype=torch.float64, device=text.device)
        logits = denoise(tokens, z.float(), level, free)
        if number < len(times):
            guess, token = guesses(logits, codes, z[free], now, settings)
            normal = draw_normals(free, codes.shape[-1], rngs)[free]
            z[free] = step(z[free], guess, times[number], now, normal)
        else:
            uniform = draw_uniforms(free, rngs)[free]
            token, log_prob[free] = read_tokens(logits, codes, z[free], now, uniform, settings)
        changed = torch.zeros_like(free).masked_scatter(free, token != text[free])
        changed_at[changed] = number
        text[free] = token
        if keep_frames:
            frames.append(text.clone())
    calls = settings.steps if bool(free.any()) else 0
    used = free.any(1).long().cpu() * settings.steps
    return Sample(text, changed_at.cpu(), log_prob.float().cpu(), calls, used, used.clone(), frames)
