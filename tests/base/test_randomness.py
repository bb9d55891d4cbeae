"""Seeds: the numbers stay what they were, places do not meet, and numpy draws what torch draws."""

import itertools

import torch

from base.randomness import dropout_seed, row_seed, row_uniforms, step_seed


def test_the_numbers_stay():
    """A change of a formula would change every sample and every training run."""
    assert row_seed(3, 5) == 3_000_014
    assert step_seed(3, 7, 2) == 3_000_009 + 70_049 + 15_838 + 1
    assert dropout_seed(3, 7, 2) == 3_000_009 + 7 + 15_838
    assert 0 <= step_seed(2**60, 10**9, 99) < 2**63


def test_places_do_not_meet():
    for formula in (step_seed, dropout_seed):
        places = list(itertools.product(range(3), range(200), range(4)))
        assert len({formula(*place) for place in places}) == len(places)
    assert len({row_seed(seed, row) for seed in range(3) for row in range(2000)}) == 6000


def test_numpy_draws_what_torch_draws():
    """Whether torch draws a row's numbers together or in pieces."""
    for seed, first in ((0, 0), (3, 5), (5000, 1)):
        drawn = row_uniforms(seed, 2, first, 34)
        for row in range(2):
            generator = torch.Generator().manual_seed(row_seed(seed, first + row))
            pieces = [
                torch.rand(count, generator=generator, dtype=torch.float64) for count in (3, 1, 30)
            ]
            assert drawn[row].tolist() == torch.cat(pieces).tolist()
