"""The control loop: what fits together, stopping, and three threads in real time."""

import dataclasses
import time

import numpy as np
import pytest

from base import control, limits
from base.control import ControlConfig, Loop
from base.errors import UserError
from base.faults import Troubled, Troubles
from base.robots import RealClock
from base.scaling import Scaling
from base.virtual import VirtualClock
from tests.making.driven import Point, Waves

TABLE = limits.read("table")


def test_a_policy_of_another_robot_is_refused():
    robot, maker = Point(VirtualClock()), Waves()
    maker.scaling = Scaling.none(6, 8)
    with pytest.raises(UserError, match="actions of 4 numbers"):
        Loop(robot, maker, TABLE, ControlConfig())
    maker = Waves()
    maker.absolute = True
    with pytest.raises(UserError, match="where to be"):
        Loop(robot, maker, TABLE, ControlConfig())
    robot.names = ["a", "b", "c", "d"]
    with pytest.raises(UserError, match="a, b, c, d; expected x, y, z, gripper"):
        Loop(robot, Waves(), TABLE, ControlConfig())


def test_a_stop_stops_at_the_next_step():
    robot = Point(VirtualClock())
    loop = Loop(robot, Waves(), TABLE, ControlConfig())
    robot.deaf = True  # a stop asks the robot nothing
    loop.stopped = "a key was pressed"
    loop.step(0.0)
    assert loop.ending == "stopped: a key was pressed" and loop.stage == "over"
    assert not robot.commands[-1][:3].any()


def test_joints_go_to_a_target_in_shares():
    bounds = dataclasses.replace(
        TABLE, kind="joints", metres=None, low=-np.ones(4), high=np.ones(4), pose=np.zeros(4)
    )
    rest = {name: np.full(4, 1.0) for name in ("velocity", "acceleration", "leash", "tolerance")}
    bounds = dataclasses.replace(bounds, workspace=None, **rest)
    maker = Waves()
    maker.absolute = True
    loop = Loop(Point(VirtualClock()), maker, bounds, ControlConfig(speed=0.2))
    loop.guard.anchor(np.zeros(8))
    assert loop.units(np.ones(4), 0.25) == pytest.approx(np.full(4, 0.25))
    assert loop.units(None, 1.0) is None


def run(seconds=1.5, **troubles):
    clock = RealClock()
    robot, maker = Point(clock), Waves()
    troubled = Troubled(maker, Troubles(**troubles), clock)
    loop = Loop(robot, troubled, TABLE, ControlConfig(seconds=seconds))
    troubled.begin("go", 0)
    begun = time.monotonic()
    control.run(loop, clock)
    return loop, robot, time.monotonic() - begun


def test_in_real_time_the_rate_is_kept_and_chunks_come():
    loop, robot, took = run()
    figures = loop.snapshot(0.0)
    done = figures["steps"] + figures["counts"].get("missed_steps", 0)
    assert 14 <= done <= 17 and took < 5  # control steps of 0.1 s, on any machine
    assert figures["counts"]["chunks"] >= 1 and figures["counts"]["frames"] >= 2
    assert loop.plan.done >= 1 and loop.stage == "over"
    assert not robot.commands[-1][:3].any()


def test_in_real_time_a_policy_that_hangs_does_not_stop_the_loop():
    loop, robot, took = run(2.0, fault="hang", fault_at=0.0, fault_seconds=60.0)
    assert loop.figures.steps >= 10 and took < 6
    assert all(not command[:3].any() for command in robot.commands)
