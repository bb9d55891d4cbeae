"""The bound: closed forms, enumeration, and that every way to estimate it is unbiased."""

import itertools
import math

import pytest
import torch

import diffusion
from base.config import ESTIMATORS, SCHEDULES
from diffusion import Schedule
from loop.batches import with_noise_levels
from tests.making.toys import (
    MASK,
    STRINGS,
    arbitrary,
    chi_square,
    enumerated_bound,
    oracle,
    random_joint,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def within_four_errors(values, expected):
    """values (N,) independent estimates of `expected`."""
    error = values.std() / math.sqrt(len(values))
    assert abs(values.mean() - expected) < 4 * error, (
        f"{values.mean():.5f} ± {error:.5f}, expected {expected:.5f}"
    )


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule(name):
    schedule, t = (
        Schedule(name),
        torch.linspace(0.01, 0.99, 99, dtype=torch.float64, requires_grad=True),
    )
    assert schedule.alpha(torch.tensor([0.0, 1.0]).double()).tolist() == pytest.approx(
        [1.0, 0.0], abs=1e-12
    )
    (slope,) = torch.autograd.grad(schedule.alpha(t).sum(), t)
    assert torch.allclose(schedule.rate(t), -slope / (1 - schedule.alpha(t)), rtol=1e-10)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_weighs_masks_alike(name):
    """∫ -alpha'/(1-alpha) (1-alpha)^k alpha^(n-k) dt = 1/(k C(n, k)): the bound does not depend on the schedule."""
    schedule, t = Schedule(name), (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    for k, n in itertools.combinations_with_replacement(range(1, 7), 2):
        integral = (
            (schedule.rate(t) * (1 - schedule.alpha(t)) ** k * schedule.alpha(t) ** (n - k))
            .mean()
            .item()
        )
        assert integral == pytest.approx(1 / (k * math.comb(n, k)), abs=1e-5)


def test_bound_of_an_exact_denoiser_is_the_likelihood():
    joint = random_joint()
    denoise, free = oracle(joint), torch.ones(3, dtype=torch.bool)
    bounds = torch.tensor(
        [enumerated_bound(denoise, string, free) for string in STRINGS], dtype=torch.float64
    )
    assert torch.allclose(bounds, -joint.log(), atol=1e-10)
    assert (joint * bounds).sum().item() == pytest.approx(
        -(joint * joint.log()).sum().item(), abs=1e-10
    )


# Rows with 3, 2 and 1 free tokens; the others are given.
ROWS = torch.tensor([[0, 1, 2], [2, 2, 1], [1, 0, 0]])
FREE = torch.tensor([[1, 1, 1], [0, 1, 1], [0, 1, 0]]).bool()


def exact_bounds(denoise):
    return torch.tensor(
        [enumerated_bound(denoise, row, free) for row, free in zip(ROWS, FREE, strict=True)],
        dtype=torch.float64,
    )


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_bound_estimates_are_unbiased(estimator):
    denoise, copies = arbitrary(), 5000
    draws = diffusion.bound_estimates(
        denoise,
        ROWS.repeat(copies, 1),
        FREE.repeat(copies, 1),
        mask_id=MASK,
        rng=seeded(),
        draws=4,
        estimator=estimator,
    )
    nats = torch.stack([draw["nats"] for draw in draws]).mean(0).view(copies, 3)
    for column, expected in zip(nats.T[:2], exact_bounds(denoise)[:2].tolist(), strict=True):
        within_four_errors(column, expected)
    for draw in draws:
        assert torch.allclose(
            draw["share"], draw["masked"].double() / FREE.sum(1).repeat(copies), atol=1e-7
        )
        assert (draw["hits"] <= draw["masked"]).all()
    if estimator == "count":  # one free token: nothing is left to chance
        assert torch.allclose(nats[:, 2], exact_bounds(denoise)[2], atol=1e-6)


@pytest.mark.parametrize(
    "estimator, complementary", [*((name, False) for name in ESTIMATORS), ("count", True)]
)
def test_loss_is_the_sum_of_bounds_over_the_sum_of_tokens(estimator, complementary):
    denoise, rng = arbitrary(), seeded(1)
    tokens, free = ROWS.repeat(20, 1), FREE.repeat(20, 1)
    losses = [
        diffusion.loss(
            denoise,
            tokens,
            free,
            mask_id=MASK,
            rng=rng,
            estimator=estimator,
            complementary=complementary,
        )
        for _ in range(300)
    ]
    expected = (exact_bounds(denoise).sum() / FREE.sum()).item()
    within_four_errors(torch.stack([value for value, _ in losses]), expected)
    assert all(value.item() == stats["nats_per_token"] for value, stats in losses)


def test_complementary_masks_supervise_each_token_once():
    seen = []

    def denoise(tokens, share, select):
        seen.append((select, share))
        return torch.zeros(int(select.sum()), 3)

    diffusion.loss(denoise, ROWS, FREE, mask_id=MASK, rng=seeded(), complementary=True)
    (one, share), (other, rest) = seen
    assert torch.equal(one ^ other, FREE)
    assert torch.allclose(share.double() * FREE.sum(1), one.sum(1).double())
    assert torch.allclose((share + rest).double(), torch.ones(3, dtype=torch.float64))


def test_counts_are_exactly_uniform():
    """2000 stratified rows of 5 free tokens: each k exactly 400 times, and each mask of k tokens equally often."""
    free = torch.tensor([False, True, True, True, False, True, True]).expand(2000, 7)
    drawn = diffusion.corrupt(free, diffusion.stratified(2000, seeded()), seeded(1))
    k = drawn.masked.sum(1)
    assert torch.bincount(k).tolist() == [0, 400, 400, 400, 400, 400]
    assert not (drawn.masked & ~free).any()
    assert torch.allclose(drawn.share, k.double() / 5) and torch.allclose(
        drawn.weight, 5 / k.double()
    )
    for size in range(1, 5):
        masks = drawn.masked[k == size].float() @ (2.0 ** torch.arange(7))
        counts = masks.unique(return_counts=True)[1]
        assert (
            len(counts) == math.comb(5, size)
            and chi_square(counts, 1 / torch.tensor(len(counts))) > 1e-4
        )


def test_noise_levels_are_stratified_over_micro_batches():
    batches = [{"tokens": torch.zeros(size, 4)} for size in (3, 5, 2)]
    levels = torch.cat([batch["uniform"] for batch in with_noise_levels(batches, seeded())])
    assert sorted((levels * 10).long().tolist()) == list(range(10))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_denoiser_is_told_the_masked_share(estimator):
    def denoise(tokens, share, select):
        assert torch.equal(select, tokens == MASK)
        assert torch.allclose(
            share.double(), select.sum(1).double() / FREE.sum(1).repeat(40), atol=1e-7
        )
        return torch.zeros(int(select.sum()), 3)

    diffusion.loss(
        denoise,
        ROWS.repeat(40, 1),
        FREE.repeat(40, 1),
        mask_id=MASK,
        rng=seeded(),
        estimator=estimator,
    )


def test_constant_cross_entropy_has_no_variance_under_count():
    guess = lambda tokens, share, select: torch.zeros(int(select.sum()), 3)
    for seed in range(10):
        value, stats = diffusion.loss(guess, ROWS, FREE, mask_id=MASK, rng=seeded(seed))
        assert value.item() == pytest.approx(math.log(3), abs=1e-6)
        assert stats["masked_cross_entropy"] == pytest.approx(math.log(3), abs=1e-6)


@pytest.mark.parametrize("weight", ["bound", "clipped", "flat"])
def test_a_draw_that_masks_nothing_costs_nothing(weight):
    value, stats = diffusion.loss(
        arbitrary(),
        ROWS,
        FREE,
        mask_id=MASK,
        rng=seeded(),
        estimator="linear",
        weight=weight,
        uniform=torch.zeros(3, dtype=torch.float64),
    )
    assert value.item() == stats["nats_per_token"] == stats["masked_cross_entropy"] == 0.0


def test_weights():
    """clipped: a token weighs at most 5; flat: the mean over masked tokens."""
    tokens = torch.zeros(1, 8, dtype=torch.long)
    guess = lambda tokens, share, select: torch.zeros(int(select.sum()), 3)
    for k, weight in itertools.product((1, 2, 8), ("bound", "clipped", "flat")):
        value, _ = diffusion.loss(
            guess,
            tokens,
            tokens == 0,
            mask_id=MASK,
            rng=seeded(),
            weight=weight,
            uniform=torch.tensor([(k - 0.5) / 8], dtype=torch.float64),
        )
        expected = {"bound": 1.0, "clipped": min(8 / k, 5.0) * k / 8, "flat": 1.0}[
            weight
        ] * math.log(3)
        assert value.item() == pytest.approx(expected, rel=1e-6)


def test_guidance():
    conditional, unconditional = arbitrary(1), arbitrary(2)
    masks = (torch.full((1, 3), MASK), torch.ones(1), torch.ones(1, 3, dtype=torch.bool))
    c, u = conditional(*masks).log_softmax(-1), unconditional(*masks).log_softmax(-1)
    for scale, expected in ((1.0, c), (0.0, u), (2.5, (2.5 * c - 1.5 * u).log_softmax(-1))):
        guided = diffusion.guide(conditional, unconditional, scale)(*masks)
        assert torch.allclose(guided, expected, atol=1e-12)
        assert torch.allclose(guided.logsumexp(-1), torch.zeros(3, dtype=torch.float64), atol=1e-12)
