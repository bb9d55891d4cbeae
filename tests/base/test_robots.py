"""A recorded episode plays in time, compares, and moves nothing; a wrong file is refused."""

import time

import numpy as np
import pytest

from base import robots
from base.errors import UserError
from base.robots import RealClock, Replay
from base.virtual import VirtualClock

NAMES = ["x", "y", "z", "gripper"]


def arrays(**more) -> dict:
    states = np.arange(40, dtype=np.float32).reshape(5, 8)
    kept = {"robot": "table", "rate": 10, "state": states, "action": np.full((5, 4), 0.5)}
    return kept | {"image": np.zeros((5, 4, 4, 3), np.uint8)} | more


def write(folder, **more):
    path = folder / "episode.npz"
    np.savez(path, **{key: value for key, value in arrays(**more).items() if value is not None})
    return path


def test_an_episode_plays_in_time(tmp_path):
    clock = VirtualClock()
    robot = Replay(robots.recorded(write(tmp_path)), NAMES, clock)
    assert robot.name == "table" and robot.rate == 10.0
    for number in range(5):
        frame = robot.look()
        assert frame.stamp == pytest.approx(number / 10) and not robot.over()
        assert frame.seen["state"][0] == 8 * number == robot.observe()[0]
        assert frame.seen["image"].shape == (4, 4, 3)
        robot.act(np.array([0.5, 0.5, 0.5, 0.9]))
    clock.wait_until(0.5)
    assert "0.1000 on average" in robot.over()
    robot.relax(0.5)
    robot.close()


@pytest.mark.parametrize(
    "more, part",
    [
        ({"rate": None}, "without 'rate'"),
        ({"rate": 0}, "a rate of 0"),
        ({"rate": np.nan}, "a rate of nan"),
        ({"action": np.zeros((4, 4))}, "5 frames"),
        ({"action": np.array([["a"] * 4] * 5)}, "type <U1"),
        ({"state": np.zeros((0, 8))}, "state of the shape"),
        ({"action": np.array([{}] * 5, dtype=object)}, "no .npz file of arrays"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, more, part):
    with pytest.raises(UserError, match=part):
        robots.recorded(write(tmp_path, **more))


def test_no_file_another_file_and_another_width(tmp_path):
    with pytest.raises(UserError, match="no file"):
        robots.recorded(tmp_path / "missing.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(UserError, match="no .npz"):
        robots.recorded(tmp_path / "text.npz")
    with pytest.raises(UserError, match="recorded actions of 4 numbers"):
        Replay(robots.recorded(write(tmp_path)), ["a", "b"], VirtualClock())


def test_the_real_clock_goes_forward_and_can_be_ended():
    clock = RealClock()
    begun = clock.now()
    clock.wait_until(begun + 0.05)
    assert clock.now() >= begun + 0.05
    clock.stopped.set()
    clock.sleep(60.0)
    assert time.monotonic() - begun < 30
