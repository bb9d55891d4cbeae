"""Chunks by torch: every mode gives actions, unknown words are said, what is given stays."""

import numpy as np
import pytest
import torch

from base.driving import MODES, DriveConfig, Driver
from net.chunks import ChunkConfig
from robot import policies, stills
from robot.writer import TorchMaker
from worlds.layouts import sample_layout

LAYOUT = sample_layout(np.random.default_rng(0))
SEEN = {
    "state": np.zeros(8, np.float32),
    "things": stills.places_of(LAYOUT)[:5],
    "kinds": stills.kinds_of(LAYOUT),
}


@pytest.fixture
def maker(robot_world):
    opened = policies.open_policy(robot_world / "policy" / "best.pt", torch.device("cpu"))
    return TorchMaker(opened, ChunkConfig())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("delay", [0, 1, 3])
def test_every_mode_gives_an_action_in_every_step(maker, mode, delay):
    driver = Driver(maker, DriveConfig(delay=delay, while_waiting=mode))
    assert driver.begin("please grab the purple dinosaur") == ["dinosaur"]
    for _ in range(10):
        action = driver.next(SEEN)
        assert action.shape == (4,) and np.abs(action).max() <= 1
    assert len(driver.seconds) == len(driver.made) >= 2
    assert all(made.places.shape == (2, 3) for made in driver.made)


def test_what_is_given_stays(maker):
    maker.begin("pick up the red star", 0)
    prefix = np.full((2, 4), 0.5, np.float32)
    made = maker.make(SEEN, [], prefix)
    assert (made.actions[:2] == 0.5).all()
    assert (made.calls[:2] == 0).all() and (made.calls[2:] == 1).all()
