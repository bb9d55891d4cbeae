"""ReMDM: revealing and masking again keep the expected masked share, for every variant."""

import itertools

import pytest
import torch

from base.config import SCHEDULES, SampleConfig
from diffusion import Schedule
from net.remasking import reveal_probability


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    "remask, strength", list(itertools.product(["cap", "rescale", "loop"], [0.04, 0.5, 1.0]))
)
def test_remasking_keeps_the_expected_share(remask, strength, schedule):
    """alpha_t (1 - sigma) + (1 - alpha_t) reveal = alpha_s at every step, all probabilities in [0, 1]."""
    steps, config = (
        40,
        SampleConfig(sampler="remask", remask=remask, remask_strength=strength, schedule=schedule),
    )
    there, path = 0.0, []
    for step in range(steps):
        (reveal,), (again,) = reveal_probability(
            torch.tensor([step]), torch.tensor([steps]), config
        )
        assert -1e-12 <= reveal <= 1 + 1e-12 and 0 <= again <= 1
        there = there * (1 - again.item()) + (1 - there) * reveal.item()
        path.append(there)
    time = 1 - torch.arange(1, steps + 1, dtype=torch.float64) / steps
    if remask == "loop":  # the middle act stays at alpha_on
        middle = [there for there, t in zip(path, time.tolist(), strict=True) if 0.05 <= t <= 0.55]
        assert (
            middle == pytest.approx([0.9] * len(middle), abs=1e-9)
            and len(middle) > 15
            and path[-1] == 1.0
        )
    else:
        assert path == pytest.approx(Schedule(schedule).alpha(time).tolist(), abs=1e-9)
