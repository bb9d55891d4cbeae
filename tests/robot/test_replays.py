"""Recorded episodes as replays: the arrays of their frames, and what is refused."""

import json

import numpy as np
import pytest

from base.errors import UserError
from base.robots import Replay, recorded
from base.virtual import VirtualClock
from robot import replays
from robot.episodes import Episodes
from tests.making.demonstrations import record


@pytest.fixture
def folder(tmp_path):
    folder = record(tmp_path / "demos")
    rename(folder, "so101_follower")
    return folder


def rename(folder, robot: str) -> None:
    path = folder / "meta" / "info.json"
    info = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(info | {"robot_type": robot}), encoding="utf-8")


def test_an_episode_becomes_arrays_that_are_played(folder, tmp_path):
    episodes = Episodes(folder)
    arrays, text = replays.read(folder, 1, episodes.cameras[:1])
    frames = episodes.frames_in(1)
    assert text == episodes.task(int(frames[0])) and str(arrays["robot"]) == "so101"
    assert np.array_equal(arrays["state"], episodes.states[frames])
    assert np.array_equal(arrays["image"], episodes.images(frames, episodes.cameras[0]))
    np.savez(tmp_path / "episode.npz", **arrays)
    names = [str(number) for number in range(episodes.actions.shape[1])]
    robot = Replay(recorded(tmp_path / "episode.npz"), names, VirtualClock())
    assert np.array_equal(robot.look().seen["image"], arrays["image"][0])


def test_what_is_refused(folder):
    with pytest.raises(UserError, match="--episode 99"):
        replays.read(folder, 99, [])
    with pytest.raises(UserError, match="no feature observation.images.side"):
        replays.read(folder, 0, ["observation.images.side"])
    rename(folder, "crane")
    with pytest.raises(UserError, match="the robot 'crane'"):
        replays.read(folder, 0, [])
