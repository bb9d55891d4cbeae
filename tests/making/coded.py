"""A toy of Gaussian noise: two tokens with the codes 1 and -1, their law, a perfect network, quadrature."""

import math

import numpy as np
import torch

from net.gaussian_noise import scales, to_posterior

LAW = torch.tensor([0.7, 0.3], dtype=torch.float64)
ENTROPY = -(LAW * LAW.log()).sum().item()
CODES = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)


def perfect(tokens, z, level, select):
    """The leave-one-out read-out of single tokens: their law."""
    return LAW.log().expand(int(select.sum()), -1)


def grid(count: int = 1201) -> tuple[torch.Tensor, float]:
    """Points of z, and how far they are apart."""
    return torch.linspace(-7, 7, count, dtype=torch.float64), 14 / (count - 1)


def noised(token: int, level: float) -> tuple[torch.Tensor, torch.Tensor]:
    """z (n, 1) and its weights (n,): a quadrature over the noise on a token."""
    noise = torch.linspace(-9, 9, 361, dtype=torch.float64)
    weights = torch.exp(-noise.square() / 2)
    alpha, sigma = scales(torch.tensor(level))
    return (alpha * CODES[token] + sigma * noise)[:, None], weights / weights.sum()


def levels_and_weights(count: int = 40) -> list[tuple[float, float]]:
    """A quadrature over [0, 1]."""
    points, weights = np.polynomial.legendre.leggauss(count)
    return list(zip(((points + 1) / 2).tolist(), (weights / 2).tolist(), strict=True))


def law_in_steps(steps: int) -> torch.Tensor:
    """The law of the sampler's token after T moves, by quadrature over z: (2,)."""
    points, spacing = grid()
    density = torch.exp(-points.square() / 2) / math.sqrt(2 * math.pi)
    for number in range(steps, 0, -1):
        times = torch.tensor([number - 1, number], dtype=torch.float64) / steps
        (alpha_s, alpha_t), (sigma_s, sigma_t) = scales(times)
        read = to_posterior(
            LAW.log().expand(len(points), -1), CODES, points[:, None], times[1].expand(len(points))
        )
        guess = (read.softmax(-1) @ CODES)[:, 0]
        # q(z_s | z_t, e) as a product of two Gaussians: of z_s given e, and of z_t given z_s.
        passed = alpha_t / alpha_s
        added = sigma_t**2 - passed**2 * sigma_s**2
        precision = 1 / sigma_s**2 + passed**2 / added
        mean = (alpha_s * guess / sigma_s**2 + passed * points / added) / precision
        kernel = torch.exp(-0.5 * precision * (points[None] - mean[:, None]).square())
        density = (density * spacing) @ (kernel * (precision / (2 * math.pi)).sqrt())
    zero = torch.zeros(len(points), dtype=torch.float64)
    read = to_posterior(LAW.log().expand(len(points), -1), CODES, points[:, None], zero)
    return spacing * density @ read.softmax(-1)
