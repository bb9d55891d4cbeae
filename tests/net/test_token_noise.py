"""Bounds of uniform and hybrid noise against enumeration and definitions; the two read-outs."""

import math

import pytest
import torch

import diffusion
from diffusion import stratified
from net import channels, token_noise
from tests.making.noised import (
    DATA,
    ENTROPY,
    KINDS,
    PAIRS,
    channel_of,
    full,
    nodes,
    of_one,
    of_two,
    q,
    states,
    table,
    texts,
)

ENTROPY_OF_PAIRS = -(PAIRS * PAIRS.log()).sum().item()


def chances(channel, clean, noised, level):
    """q(noised | clean) of all pairs: (clean texts, noised texts)."""
    return q(channel, level)[clean[:, None], noised[None]].prod(-1)


def crossed(clean, noised):
    """Each clean text with each noised text: their tokens, one after the other."""
    count, length = clean.shape
    first = clean[:, None].expand(count, len(noised), length).flatten()
    return first, noised.expand(count, len(noised), length).flatten()


def continuous(channel, denoise, clean, count: int = 40) -> torch.Tensor:
    """The bound of each clean text (n, L), over all noised texts and a quadrature over levels."""
    noised = texts(states(channel), clean.shape[1])
    every = torch.ones_like(noised, dtype=torch.bool)
    given = crossed(clean, noised)
    bounds = torch.zeros(len(clean), dtype=torch.float64)
    for level, weight in nodes(count):
        logits = denoise(noised, full(level, len(noised)), every).repeat(len(clean), 1)
        rate = token_noise.rates(channel, logits, *given, full(level, len(logits)))
        nats = rate.view(len(clean), len(noised), -1).sum(-1)
        bounds += weight * (chances(channel, clean, noised, level) * nats).sum(1)
    return bounds


def in_steps(channel, denoise, clean, steps: int) -> torch.Tensor:
    """The T-step bound of each clean text (n, L), over all noised texts."""
    noised = texts(states(channel), clean.shape[1])
    every = torch.ones_like(noised, dtype=torch.bool)
    given = crossed(clean, noised)
    bounds = torch.zeros(len(clean), dtype=torch.float64)
    for number in range(steps):
        before, now = number / steps, (number + 1) / steps
        logits = denoise(noised, full(now, len(noised)), every).repeat(len(clean), 1)
        times = full(before, len(logits)), full(now, len(logits))
        read = token_noise.to_posterior(channel, logits, given[1], times[1]).softmax(-1)
        nats = token_noise.step_losses(channel, read, *given, *times)
        law = chances(channel, clean, noised, now)
        nats = nats.view(len(clean), len(noised), -1).sum(-1)
        bounds += torch.where(law > 0, law * nats, 0.0).sum(1)
    return bounds


# ---- A perfect network: each bound is the entropy at its own read-out


@pytest.mark.parametrize("kind", KINDS)
def test_the_continuous_bound_is_the_entropy_at_the_leave_one_out_read_out(kind):
    channel = channel_of(kind, 4)
    symbols = texts(4, 1)
    right, wrong = (
        (DATA * continuous(channel, of_one(read, channel), symbols)).sum().item()
        for read in ("leave_one_out", "posterior")
    )
    assert right == pytest.approx(ENTROPY, abs=1e-6)
    assert wrong > ENTROPY + 0.3


@pytest.mark.parametrize("kind", KINDS)
def test_and_so_is_that_of_two_tokens_if_the_network_knows_the_level(kind):
    channel, law = channel_of(kind, 3), PAIRS.flatten()

    def mean(read, told=None):
        bounds = continuous(channel, of_two(read, channel, told), texts(3))
        return (law * bounds).sum().item()

    assert mean("leave_one_out") == pytest.approx(ENTROPY_OF_PAIRS, abs=1e-5)
    assert mean("posterior") > ENTROPY_OF_PAIRS + 0.3
    assert mean("leave_one_out", told=0.5) > ENTROPY_OF_PAIRS + 0.01


@pytest.mark.parametrize("steps", [2, 4, 16])
@pytest.mark.parametrize("kind", KINDS)
def test_the_bound_of_steps_is_the_entropy_at_the_posterior(kind, steps):
    channel, symbols = channel_of(kind, 4), texts(4, 1)
    right, wrong = (
        (DATA * in_steps(channel, of_one(read, channel), symbols, steps)).sum().item()
        # `in_steps` adds the evidence, so the second network counts it twice.
        for read in ("leave_one_out", "posterior")
    )
    assert right == pytest.approx(ENTROPY, abs=1e-12)
    assert wrong > ENTROPY + 0.02


def test_without_random_ids_it_is_the_bound_of_masks():
    """p = 0, and a random network: its bound is c_1 + c_2 of diffusion.py."""

    def timeless(text, level, select):
        return table(text, torch.full_like(level, 0.5), select)

    channel = channel_of("hybrid", 3, 0.0)
    found = continuous(channel, timeless, texts(3))
    expected = torch.zeros(9, dtype=torch.float64)
    for mask in ([True, True], [True, False], [False, True]):
        masked = torch.tensor(mask).expand(9, 2)
        nats, _ = diffusion.masked_losses(timeless, texts(3), masked, full(0.5, 9), 3)
        # c_2 is the mean of two losses, c_1 the mean over the two masks of a single token.
        expected += nats.view(9, -1).sum(1) / 2
    assert torch.allclose(found, expected, atol=1e-6)


# ---- A random network of two tokens: against definitions, written anew


def naive_rate(channel, clean, noised, level: float) -> float:
    """The integrand from its definition, term by term."""
    law, count = q(channel, level), states(channel)
    every = torch.ones(1, 2, dtype=torch.bool)
    guess = table(noised[None], full(level, 1), every).softmax(-1)
    total = 0.0
    for i in range(2):
        x, z = int(clean[i]), int(noised[i])
        model = guess[i] @ law[:3]
        rate = float(law[z - 1, z] * channel.urgency(noised[i : i + 1], full(level, 1)))
        for y in set(range(count)) - {z}:
            s, h = float(law[x, y] / law[x, z]), float(model[y] / model[z])
            total += rate * (h - s * math.log(h) + s * (math.log(s) - 1))
    return total


@pytest.mark.parametrize("kind", KINDS)
def test_the_integrand_is_its_definition(kind):
    channel = channel_of(kind, 3)
    noised = texts(states(channel))
    every = torch.ones_like(noised, dtype=torch.bool)
    for level in (0.02, 0.5, 0.97):
        levels = full(level, len(noised))
        logits = table(noised, levels, every)
        for clean in texts(3)[[0, 5]]:
            given = clean.expand(len(noised), 2).flatten(), noised.flatten()
            rate = token_noise.rates(channel, logits, *given, levels.repeat_interleave(2))
            expected = [naive_rate(channel, clean, row, level) for row in noised]
            assert rate.view(-1, 2).sum(1).tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_extreme_levels_stay_finite_in_float32(kind):
    channel = channel_of(kind, 3)
    pairs = texts(4)[: 3 * 4]  # a clean symbol, and what stands there
    clean, standing = pairs[pairs[:, 1] < states(channel)].T
    logits = 20 * torch.randn(len(clean), 3, generator=torch.Generator().manual_seed(0))
    for level in (channels.LEAST, 1 - 2**-53):
        logits.requires_grad_()
        rate = token_noise.rates(channel, logits, clean, standing, full(level, len(clean)))
        rate.sum().backward()
        assert rate.isfinite().all() and logits.grad.isfinite().all()
        exact = token_noise.rates(
            channel, logits.detach().double(), clean, standing, full(level, len(clean))
        )
        # Near t = 1 an id stands in one of 1e8 places, so its rounding counts nothing.
        often = (standing == 3) | torch.tensor(kind == "uniform" or level < 0.5)
        torch.testing.assert_close(rate.double()[often], exact[often], rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_both_bounds_of_a_random_network_are_bounds(kind):
    """exp(-bound) of all texts is no more than a law has. Many steps approach the continuous bound."""
    channel = channel_of(kind, 3)
    bound = continuous(channel, table, texts(3))
    assert (-bound).exp().sum() < 1
    assert (in_steps(channel, table, texts(3), 80) - bound).abs().max() < 0.15
    few = in_steps(channel, table, texts(3), 3)
    # The exact likelihood of what the sampler writes is never below its bound.
    assert (few > -chain(channel, table, 3).log() - 1e-12).all()
    estimate = estimated(
        lambda *rows, **how: token_noise.step_bounds(channel, table, *rows, steps=3, **how)
    )
    assert (estimate - few).abs().max() < 0.1


def chain(channel, denoise, steps: int) -> torch.Tensor:
    """The exact law of the sampler's texts, by Bayes' rule on the kernels of noise: (9,)."""
    noised, count = texts(states(channel)), states(channel)
    every = torch.ones_like(noised, dtype=torch.bool)
    start = q(channel, 1.0)[0]
    law = (start[:, None] * start).flatten()
    for number in range(steps, 0, -1):
        before, now = q(channel, (number - 1) / steps), q(channel, number / steps)
        forward = torch.linalg.solve(before, now)  # q(z_t | z_s)
        back = before[:3, :, None] * forward / now[:3, None]  # (x, z_s, z_t): q(z_s | z_t, x)
        back = back.nan_to_num()  # at t = 1 some z_t never occur
        logits = denoise(noised, full(number / steps, len(noised)), every).view(-1, 2, 3)
        posterior = logits.softmax(-1) * now[:3].T[noised]
        posterior = (posterior / posterior.sum(-1, keepdim=True)).nan_to_num()
        # The law of a place: sum over x of posterior and back, for the symbol that stands there.
        rows = [
            torch.einsum("nx,xsn->ns", posterior[:, i], back[:, :, noised[:, i]]) for i in range(2)
        ]
        law = law @ (rows[0][:, :, None] * rows[1][:, None]).flatten(1)
    return law.view(count, count)[:3, :3].flatten()


def estimated(work) -> torch.Tensor:
    """Of 2000 rows of each text, the mean: (9,)."""
    tokens = texts(3).repeat_interleave(2000, 0)
    free = torch.ones_like(tokens, dtype=torch.bool)
    rng = torch.Generator().manual_seed(0)
    return work(tokens, free, rng=rng, draws=6).view(9, 2000).mean(1)


@pytest.mark.parametrize("kind", KINDS)
def test_estimates_and_the_loss_have_the_mean_of_the_enumeration(kind):
    channel = channel_of(kind, 3)
    exact = continuous(channel, table, texts(3))

    def mean_of_draws(tokens, free, **how):
        rows = token_noise.bound_estimates(channel, table, tokens, free, **how)
        return torch.stack([row["nats"] for row in rows]).mean(0)

    # Standard errors: 0.08 of a text, and 0.03 of all.
    apart = estimated(mean_of_draws) - exact
    assert apart.abs().max() < 0.3 and apart.mean().abs() < 0.09
    tokens = texts(3).repeat(3000, 1)
    free = torch.ones_like(tokens, dtype=torch.bool)
    how = {"rng": torch.Generator().manual_seed(1)}
    value, figures = token_noise.loss(channel, table, tokens, free, **how)
    assert value.item() == figures["nats_per_token"]
    assert value.item() == pytest.approx(exact.mean().item() / 2, abs=0.05)
    flat, figures = token_noise.loss(channel, table, tokens, free, weight="flat", **how)
    assert flat.item() == figures["posterior_cross_entropy"]


# ---- Read-outs


@pytest.mark.parametrize("kind", KINDS)
def test_a_conversion_and_its_inverse(kind):
    channel = channel_of(kind, 5)
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 5, generator=rng, dtype=torch.float64)
    standing = torch.arange(6).clamp(max=states(channel) - 1)
    level = stratified(6, rng).clamp(min=0.01)
    read = token_noise.to_posterior(channel, logits, standing, level)
    back = token_noise.to_leave_one_out(channel, read, standing, level)
    torch.testing.assert_close(back, logits)
    # By Bayes' rule: p(x | z) is proportional to p(x) q(z | x).
    seen = [q(channel, t)[:5, z] for z, t in zip(standing.tolist(), level.tolist(), strict=True)]
    weight = logits.softmax(-1) * torch.stack(seen)
    torch.testing.assert_close(read.softmax(-1), weight / weight.sum(-1, keepdim=True))
    if kind == "hybrid":
        assert torch.equal(read[5], logits[5])  # a [MASK] is no evidence


def test_levels_stand_at_the_places_of_their_rows():
    free = torch.tensor([[True, False], [True, True]])
    assert token_noise.at_places(torch.tensor([0.1, 0.2]), free).tolist() == pytest.approx(
        [0.1, 0.2, 0.2]
    )
