"""The sampler of networks that learnt noise of tokens (net/channels.py): it draws all places again.

Each call asks for the posterior p(x | z_t), and draws z_s for an earlier level s from the mixture

    p(z_s | z_t) = sum over x of p(x | z_t) q(z_s | z_t, x)

so a drawn token may change again, and with hybrid noise become [MASK] again. The last call has
s = 0, where the law is the posterior itself.
"""

import torch
from torch import Tensor

from base.config import SampleConfig
from diffusion import Denoise, Schedule
from net.channels import Channel
from net.draws import distribution, draw_uniforms, log_prob_of, pick
from net.samplers import Sample
from net.token_noise import PIECE, reverse_law, to_posterior


def levels(settings: SampleConfig) -> list[float]:
    """The noise levels of a sampler's calls, from 1 to 0: one more than its calls."""
    t = torch.arange(settings.steps, -1, -1, dtype=torch.float64) / settings.steps
    level = 1 - Schedule(settings.schedule).alpha(t)
    return [1.0, *level[1:-1].tolist(), 0.0]  # exact ends: the cosine's are rounded


@torch.no_grad()
def sample(
    channel: Channel,
    denoise: Denoise,
    tokens: Tensor,
    settings: SampleConfig,
    *,
    rngs: list[torch.Generator],
    keep_frames: bool = False,
) -> Sample:
    """Write at every [MASK] of `tokens` (B, L) int64. All other tokens are given and never change.

    The places begin as noise leaves them: random ids, or with hybrid noise [MASK]s. Each of
    settings.steps calls draws all of them again by `reverse_law`. temperature and top_p act on the
    posterior read-out. With both at 1 and a perfect network, the last text of a single place has
    the law of the data, whatever the steps. Several places are drawn independently in a call, so
    there more steps are closer to the law.

    The network cannot see that given tokens are no noise: text around them is an approximation.

    rngs: a CPU generator per row. In the trace, `step` is the last call that changed a place, and
    `log_prob` is the posterior's in the last call: its sum is no likelihood of the text.
    """
    free = tokens == channel.mask_id
    text = torch.where(free, channel.start(draw_uniforms(free, rngs)), tokens)
    step = free.long()
    log_prob = torch.zeros(tokens.shape, dtype=torch.float64, device=tokens.device)
    frames = []
    times = levels(settings)
    for number in range(settings.steps):
        now, before = times[number], times[number + 1]
        level = torch.full((len(text),), now, dtype=torch.float64, device=text.device)
        logits = denoise(text, level, free)
        uniform = draw_uniforms(free, rngs)[free]
        token, nats = draw(channel, logits, text[free], before, now, uniform, settings)
        changed = torch.zeros_like(free).masked_scatter(free, token != text[free])
        step[changed] = number + 1
        text[free], log_prob[free] = token, nats
        if keep_frames:
            frames.append(text.clone())
    calls = settings.steps if bool(free.any()) else 0
    used = free.any(1).long().cpu() * settings.steps
    return Sample(text, step.cpu(), log_prob.float().cpu(), calls, used, used.clone(), frames)


def draw(
    channel: Channel,
    logits: Tensor,
    standing: Tensor,
    before: float,
    now: float,
    uniform: Tensor,
    settings: SampleConfig,
) -> tuple[Tensor, Tensor]:
    """Tokens (M,) of the level `before`, and their posterior log-probabilities (M,) float64.

    logits: (M, V), leave-one-out. standing: (M,) tokens of the level `now`. uniform: (M,) float64.
    A [MASK] has the log-probability 0.
    """
    tokens, nats = [standing[:0]], [uniform[:0]]
    table = (logits, standing, uniform)
    for piece, there, point in zip(*(part.split(PIECE) for part in table), strict=True):
        later, earlier = torch.full_like(point, now), torch.full_like(point, before)
        read = to_posterior(channel, piece.double(), there, later)
        posterior = distribution(read, settings.temperature, settings.top_p)
        column = pick(reverse_law(channel, posterior, there, earlier, later), point)
        is_mask = column == channel.writable
        tokens.append(column.masked_fill(is_mask, channel.mask_id))
        chance = log_prob_of(read, column.masked_fill(is_mask, 0))
        nats.append(chance.masked_fill(is_mask, 0.0))
    return torch.cat(tokens), torch.cat(nats)
