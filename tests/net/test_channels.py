"""What noise does to a token: the law and its rates against matrices, and its draws."""

import pytest
import torch

from net.channels import LEAST, Channel, Hybrid
from tests.making.noised import KINDS, channel_of, full, q

LEVELS = (0.01, 0.3, 0.5, 0.9)


@pytest.mark.parametrize("kind", KINDS)
def test_shares_are_a_law_from_clean_text_to_noise(kind):
    channel = channel_of(kind, 4)
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    shares = torch.stack(channel.shares(t))
    assert (shares >= 0).all() and torch.allclose(shares.sum(0), torch.ones(101).double())
    assert shares[:, 0].tolist() == [1, 0, 0]
    assert shares[:, 100].tolist() == ([0, 0, 1] if kind == "hybrid" else [0, 1, 0])
    assert (shares[0].diff() < 0).all()


def test_the_uniform_share_is_that_of_half_time():
    stay, random, mask = Hybrid(7, 9, 0.3).shares(torch.tensor(0.5).double())
    assert random.item() == pytest.approx(0.3) and stay.item() == pytest.approx(mask.item())


@pytest.mark.parametrize("kind", KINDS)
def test_rates_are_those_of_the_process(kind):
    """From q_s to q_t there is a kernel, which jumps to z at one rate, whatever stood there."""
    channel = channel_of(kind, 3)
    for level in LEVELS:
        kernel = torch.linalg.solve(q(channel, level), q(channel, level + 1e-6))
        rate = kernel / 1e-6
        rate.fill_diagonal_(float("nan"))
        for standing in range(len(rate)):
            found = rate[:, standing][~rate[:, standing].isnan()]
            new = q(channel, level)[standing - 1, standing]  # b(z)
            expected = new * channel.urgency(torch.tensor([standing]), full(level, 1))
            assert torch.allclose(found, expected.expand_as(found), rtol=1e-4) and (found > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_evidence_is_that_of_the_law(kind):
    channel = channel_of(kind, 3)
    for level in LEVELS:
        law = q(channel, level)
        said = channel.evidence(torch.arange(len(law)), full(level, len(law)))
        ratios = [(law[z, z] / law[z - 1, z]).log().item() if z < 3 else 0 for z in range(len(law))]
        assert said.tolist() == pytest.approx(ratios)


def test_noise_keeps_given_places_and_has_its_shares():
    tokens = torch.full((4, 6000), 2)
    tokens[:, 0], tokens[:, 5000:] = 6, 7  # [BOS] and [PAD] of a vocabulary of 5 ids
    free = tokens == 2
    level = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=torch.float64)
    for channel in (Channel(5, 9), Hybrid(5, 9, 0.4)):
        noised = channel.corrupt(tokens, free, level, torch.Generator().manual_seed(0))
        assert torch.equal(noised[~free], tokens[~free])
        assert set(noised[free].tolist()) <= {*range(5), 9}
        stay, random, mask = channel.shares(level)
        is_mask = ((noised == 9).sum(1) / 4999).tolist()
        assert is_mask == pytest.approx(mask.tolist(), abs=0.03)
        # A random id is the old token in a fifth of the cases.
        same = ((noised == 2).sum(1) / 4999).tolist()
        assert same == pytest.approx((stay + random / 5).tolist(), abs=0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_counts_make_any_mean_one_of_uniform_levels(kind):
    channel = channel_of(kind, 3)
    uniform = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    level, counts = channel.levels(uniform)
    assert level.min() >= LEAST and level.max() < 1
    assert (counts * (level.sqrt() + level**2)).mean().item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_sampler_starts_as_noise_ends(kind):
    channel = channel_of(kind, 4)
    start = channel.start(torch.tensor([[0.0, 0.3, 0.5, 1 - 2**-53]]).double())
    assert start.tolist() == ([[4, 4, 4, 4]] if kind == "hybrid" else [[0, 1, 2, 3]])
