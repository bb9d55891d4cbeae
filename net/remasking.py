"""The samplers that reveal by chance, and may mask again: ancestral, and ReMDM's remask.

ReMDM (arXiv 2503.00307) lets a revealed token be masked again with probability sigma.
"""

import torch
from torch import Tensor

from base.config import SampleConfig
from diffusion import Schedule

# ReMDM-loop: revealing up to time 0.55, re-masking at alpha 0.9 until 0.05, then the rest
# (arXiv 2503.00307, section 5).
LOOP_ON, LOOP_OFF, LOOP_ALPHA = 0.55, 0.05, 0.9

TINY = 1e-12  # keeps 0/0 at 0 where a probability is irrelevant


def reveal_probability(step: Tensor, steps: Tensor, config: SampleConfig) -> tuple[Tensor, Tensor]:
    """Probabilities (B,) float64 that a masked token is revealed, and a revealed one masked again.

    ReMDM (arXiv 2503.00307): with the re-masking probability sigma, reveal with probability
    (alpha_s - (1 - sigma) alpha_t)/(1 - alpha_t). The expected masked share stays 1 - alpha_s.
    Ancestral sampling is the case sigma = 0. step, steps: (B,) this call's number from 0, and the
    calls allowed.
    """
    t = (1 - step.double() / steps).clamp(min=0)
    s = (1 - (step + 1).double() / steps).clamp(min=0)
    loops = config.sampler == "remask" and config.remask == "loop"
    alpha = loop_alpha if loops else Schedule(config.schedule).alpha
    alpha_t, alpha_s = alpha(t), alpha(s)
    sigma = torch.zeros_like(alpha_t)
    if config.sampler == "remask":
        # Above this limit the reveal probability would have to exceed 1.
        limit = torch.where(alpha_t > 0, (1 - alpha_s) / alpha_t.clamp(min=TINY), 1.0)
        limit = limit.clamp(max=1.0)
        if config.remask == "rescale":
            sigma = config.remask_strength * limit
        else:
            sigma = limit.clamp(max=config.remask_strength)
        if loops:
            sigma = torch.where((t <= LOOP_ON) & (s >= LOOP_OFF), sigma, 0.0)
    reveal = (alpha_s - (1 - sigma) * alpha_t) / (1 - alpha_t).clamp(min=TINY)
    last = step + 1 >= steps
    return torch.where(last, 1.0, reveal), torch.where(last, 0.0, sigma)


def loop_alpha(t: Tensor) -> Tensor:
    """ReMDM-loop's alpha: rise to LOOP_ALPHA, stay there while re-masking, then finish."""
    rise = LOOP_ALPHA * (1 - t) / (1 - LOOP_ON)
    finish = 1 - (1 - LOOP_ALPHA) * t / LOOP_OFF
    return torch.where(t > LOOP_ON, rise, torch.where(t >= LOOP_OFF, LOOP_ALPHA, finish))
