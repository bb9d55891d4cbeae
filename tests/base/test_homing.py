"""A run begins at home, or it does not begin."""

import numpy as np
import pytest

from base import homing, limits
from base.errors import UserError
from base.virtual import VirtualClock
from tests.making.driven import Point

TABLE = limits.read("table")


def test_an_arm_that_is_elsewhere_is_refused():
    homing.check_home(TABLE, TABLE.pose)
    with pytest.raises(UserError, match="z is 0.020; expected 0.140") as error:
        homing.check_home(TABLE, np.array([0, 0.2, 0.02]))
    assert "--home" in str(error.value)
    with pytest.raises(UserError, match="not at home"):
        homing.check_home(TABLE, np.array([0, 0.2, np.nan]))


def test_the_way_home_is_slow_and_ends_there():
    robot = Point(VirtualClock())
    robot.place = np.array([0.2, -0.2, 0.03])
    homing.go_home(robot, TABLE, robot.clock, 10.0, lambda: False)
    homing.check_home(TABLE, robot.observe())
    ways = np.abs([command[:3] for command in robot.commands]) * TABLE.metres
    assert ways.max() <= 0.2 * 0.3 / 10 + 1e-6 and len(ways) > 50


def test_a_way_home_that_is_blocked_or_stopped_is_an_error():
    robot = Point(VirtualClock())
    robot.place = np.array([0.2, -0.2, 0.03])
    robot.act = lambda command: robot.commands.append(command)  # it never moves
    with pytest.raises(UserError, match="it took 5 s"):
        homing.go_home(robot, TABLE, robot.clock, 10.0, lambda: False, 5.0)
    with pytest.raises(UserError, match="it was stopped"):
        homing.go_home(robot, TABLE, robot.clock, 10.0, lambda: True)
    assert not robot.commands[-1][:3].any()
