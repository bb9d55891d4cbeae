"""Observations of demonstrations are what a policy would be shown; other folders are refused."""

import numpy as np
import pytest
import torch

from base.errors import UserError
from base.observations import Observer
from edge import policy_inputs
from robot import policies


@pytest.fixture(scope="module")
def opened(robot_world):
    return policies.open_policy(robot_world / "policy" / "best.pt", torch.device("cpu"))


def test_held_out_observations(robot_world, opened):
    watcher = policy_inputs.open_demos(opened, robot_world / "data")
    given = policy_inputs.observations(opened, watcher, 5, held_out=True)
    episodes = watcher.episodes
    assert len(given) == 5 and given.rate == 10 and given.executed.shape == (5, 8, 4)
    text, (seen,) = given.orders[0]
    first = int(episodes.starts[-1])
    assert text == episodes.tasks[int(episodes.task_of[first])]
    assert np.array_equal(seen["state"], episodes.states[first])
    # A policy reads the same of it as training read.
    parts, state = Observer("state", [], 0, opened.scaling).read(seen)
    expected = watcher.seen(np.array([first]))
    assert torch.equal(torch.from_numpy(parts["kinds"]), expected["kinds"])
    assert torch.equal(torch.from_numpy(parts["things"]), expected["places"])
    assert torch.equal(torch.from_numpy(parts["real"]), expected["real"])
    assert np.array_equal(state[0], opened.scaling.plain(episodes.states[first]))
    few = policy_inputs.observations(opened, watcher, 9, held_out=False)
    assert all(not np.array_equal(each["state"], seen["state"]) for _, (each,) in few.orders)


def test_earlier_observations_come_the_newest_first(robot_world, opened, monkeypatch):
    monkeypatch.setattr(opened.policy.actor.config, "frames", 3)
    watcher = policy_inputs.open_demos(opened, robot_world / "data")
    given = policy_inputs.observations(opened, watcher, 1000, held_out=True)
    first, last = given.orders[0][1], given.orders[-1][1]
    assert np.array_equal(first[0]["state"], first[2]["state"])  # the first frame is repeated
    for number, seen in enumerate(last):
        assert np.array_equal(
            seen["state"], watcher.episodes.states[len(watcher.episodes) - 1 - number]
        )


def test_refusals(robot_world, opened, monkeypatch, tmp_path):
    with pytest.raises(UserError, match="prep_robot_demos.py"):
        policy_inputs.open_demos(opened, tmp_path)
    monkeypatch.setattr(opened.tokenizer, "fingerprint", "another")
    with pytest.raises(UserError, match="tokenizer"):
        policy_inputs.open_demos(opened, robot_world / "data")
    monkeypatch.setattr(policy_inputs, "HEADS", ("l1",))
    with pytest.raises(UserError, match="head 'diffusion'"):
        policy_inputs.open_exportable(robot_world / "policy" / "best.pt")
