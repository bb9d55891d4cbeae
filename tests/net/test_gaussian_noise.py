"""The bound of Gaussian noise against quadrature (two tokens, codes 1 and -1), and its network."""

import math

import pytest
import torch

from base.config import ModelConfig
from net import soft_masks
from net.gaussian_noise import (
    LOUD,
    QUIET,
    GaussianDenoiser,
    bound_estimates,
    gamma,
    loss,
    place_losses,
    scales,
    squared_errors,
    to_posterior,
)
from tests.making.coded import (
    CODES,
    ENTROPY,
    LAW,
    grid,
    law_in_steps,
    levels_and_weights,
    noised,
    perfect,
)

SIZE = {"vocab_size": 8, "output_size": 5, "max_length": 8, "d_model": 16, "heads": 2, "layers": 1}
CONFIG = ModelConfig(**SIZE, noise="gaussian", time_conditioning="sinusoidal", code_width=4)


def mean_at(token: int, level: float, value) -> float:
    """The mean over z of value(logits, clean, z, levels), at a level."""
    z, weights = noised(token, level)
    clean = torch.full((len(z),), token)
    levels = torch.full((len(z),), level, dtype=torch.float64)
    return (weights * value(LAW.log().expand(len(z), -1), clean, z, levels)).sum().item()


def bound_of(token: int) -> float:
    """What `place_losses` estimates: 1/8 of the rows reconstruct, the others pay for a level."""

    def estimate(rebuilt: bool):
        def value(logits, clean, z, levels):
            rows = torch.full((len(z),), rebuilt)
            return place_losses(CODES, logits, clean, z, levels, rows)[0]

        return value

    total = mean_at(token, 0.0, estimate(True)) / 8
    for level, weight in levels_and_weights():
        total += 7 / 8 * weight * mean_at(token, level, estimate(False))
    return total


def error_at(token: int, level: float) -> float:
    """E |e(w) - e^(z)|²."""
    return mean_at(
        token,
        level,
        lambda logits, clean, z, levels: squared_errors(
            to_posterior(logits, CODES, z, levels), CODES, clean
        ),
    )


def bound_in_steps(token: int, steps: int) -> float:
    """The T-step bound: the continuous bound with differences of SNR in place of its integral."""
    integral = sum(
        weight
        * 0.5
        * (LOUD - QUIET)
        * math.exp(-gamma(torch.tensor(level)).item())
        * error_at(token, level)
        for level, weight in levels_and_weights()
    )
    total = 0.0
    for number in range(steps):
        quiet, loud = (-gamma(torch.tensor([number, number + 1]) / steps)).exp().tolist()
        total += 0.5 * (quiet - loud) * error_at(token, (number + 1) / steps)
    return bound_of(token) - integral + total


def test_the_bound_of_a_perfect_network_is_the_entropy():
    """And the little that z at t = 1 still tells: KL(q(z_1) || N(0, 1)), by quadrature."""
    points, spacing = grid()
    alpha, sigma = scales(torch.tensor(1.0))
    parts = torch.exp(-0.5 * ((points[:, None] - alpha * CODES[:, 0]) / sigma) ** 2)
    mixed = parts @ LAW / sigma / math.sqrt(2 * math.pi)
    normal = torch.exp(-points.square() / 2) / math.sqrt(2 * math.pi)
    left = (spacing * mixed * (mixed / normal).log()).sum().item()
    assert 0 < left < 1e-3
    bounds = [bound_of(token) for token in range(2)]
    assert LAW @ torch.tensor(bounds).double() == pytest.approx(ENTROPY + left, abs=1e-6)
    assert bounds == pytest.approx((-LAW.log()).tolist(), abs=2e-3)


def test_the_bound_of_steps_falls_to_the_continuous_bound():
    """In between lies the exact -log p of the sampler's tokens, which rises to the data's."""
    data = LAW @ torch.tensor([bound_of(token) for token in range(2)]).double()
    excess, apart = [], []
    for steps in (4, 16, 64):
        bounds = torch.tensor([bound_in_steps(token, steps) for token in range(2)]).double()
        law = law_in_steps(steps)
        assert law.sum().item() == pytest.approx(1, abs=1e-6)
        assert (bounds > -law.log() - 1e-9).all()
        excess.append((LAW @ bounds - data).item())
        apart.append((law - LAW).abs().max().item())
    # Both ends meet: four times the steps leave about a quarter.
    assert excess[0] > 3 * excess[1] > 9 * excess[2] > 0 and excess[2] < 0.1
    assert apart[0] > 2 * apart[1] > 4 * apart[2]


def test_the_squared_error_alone_is_no_bound():
    simple = [
        sum(weight * error_at(token, level) for level, weight in levels_and_weights())
        for token in range(2)
    ]
    assert LAW @ torch.tensor(simple).double() < ENTROPY - 0.05


def test_estimates_and_the_loss_have_the_mean_of_the_quadrature():
    exact = torch.tensor([bound_of(token) for token in range(2)]).double()
    tokens = torch.tensor([[0], [1]]).repeat_interleave(8000, 0)
    free = torch.ones_like(tokens, dtype=torch.bool)
    how = {"mask_id": 2, "rng": torch.Generator().manual_seed(0)}
    draws = bound_estimates(perfect, CODES, tokens, free, draws=8, **how)
    nats = torch.stack([row["nats"] for row in draws]).mean(0).view(2, -1)
    error = nats.std(1) / nats.shape[1] ** 0.5
    assert ((nats.mean(1) - exact).abs() < 4 * error).all() and error.max() < 0.02
    guessed = sum(row["masked"] for row in draws)  # as often as there are levels
    assert torch.allclose(guessed, torch.full((16000,), 8.0, dtype=torch.float64))
    value, figures = loss(perfect, CODES, tokens, free, **how)
    assert value.item() == figures["nats_per_token"]
    assert value.item() == pytest.approx(exact.mean().item(), abs=0.08)
    flat, figures = loss(perfect, CODES, tokens, free, weight="flat", **how)
    assert flat.item() == figures["posterior_cross_entropy"] < value.item()
    with pytest.raises(ValueError, match="clipped"):
        loss(perfect, CODES, tokens, free, weight="clipped", **how)


def test_the_posterior_is_that_of_bayes():
    codes = torch.nn.functional.normalize(torch.randn(5, 3).double(), dim=-1)
    logits, z = torch.randn(6, 5).double(), torch.randn(6, 3).double()
    level = torch.linspace(0.05, 1, 6).double()
    alpha, sigma = (part[:, None, None] for part in scales(level))
    seen = torch.exp(-0.5 * ((z[:, None] - alpha * codes) / sigma).square().sum(-1))
    weight = logits.softmax(-1) * seen
    read = to_posterior(logits, codes, z, level).softmax(-1)
    torch.testing.assert_close(read, weight / weight.sum(-1, keepdim=True))


def test_the_network_trains_its_codes_and_reads_level_noise_and_given_tokens():
    torch.manual_seed(0)
    model = soft_masks.build(CONFIG)
    assert isinstance(model, GaussianDenoiser)
    assert model.codes().norm(dim=-1).tolist() == pytest.approx([1.0] * 5)
    with torch.no_grad():
        for weight in (model.embedding.weight, model.read.weight):
            weight.mul_(20)
    tokens = torch.tensor([[6, 0, 1, 2]])
    free = torch.tensor([[False, True, True, False]])
    value, _ = loss(model.reading(), model.codes(), tokens, free, mask_id=7, rng=torch.Generator())
    value.backward()
    assert all((weight.grad != 0).any() for weight in (model.code.weight, model.read.weight))
    hidden, z, t = tokens.masked_fill(free, 7), torch.zeros(1, 4, 4), torch.tensor([0.3])
    first = model.reading()(hidden, z, t, free)
    given = hidden.clone()
    given[0, 3] = 4
    for other in ((hidden, z + free[..., None], t), (hidden, z, t + 0.5), (given, z, t)):
        assert not torch.allclose(model.reading()(*other, free), first)
    with pytest.raises(TypeError, match="reading"):
        model.bind()
