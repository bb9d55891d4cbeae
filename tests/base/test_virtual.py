"""The whole loop on a virtual clock: troubles, holds, recovery, and no limit exceeded."""

import numpy as np
import pytest

from base import limits, virtual
from base.control import ControlConfig, Loop
from base.faults import Troubled, Troubles
from base.virtual import VirtualClock
from tests.making.driven import Point, Waves

TABLE = limits.read("table")


def drive(maker=None, lost=None, config=None, **troubles):
    clock = VirtualClock()
    robot = Point(clock, lost=lost or (np.inf, np.inf))
    maker = maker or Waves()
    troubled = Troubled(maker, Troubles(**troubles), clock)
    loop = Loop(robot, troubled, TABLE, config or ControlConfig(seconds=6.0))
    troubled.begin("go", 0)
    stages = []
    virtual.run(loop, clock, 0.01, lambda now: stages.append((round(now, 3), loop.stage)))
    ways = np.reshape([command[:3] for command in robot.commands], (-1, 3)) * TABLE.metres
    assert (np.abs(ways) <= TABLE.velocity / TABLE.hz + 1e-6).all()
    return loop, robot, maker, stages


def between(stages, first, last):
    return [stage for now, stage in stages if first <= now < last]


def test_an_undisturbed_run_never_holds():
    loop, robot, maker, stages = drive()
    assert set(between(stages, 0.1, 6.0)) == {"run"}
    counts = loop.snapshot(6.0)["counts"]
    assert counts["chunks"] == len(maker.prefixes) and not set(counts) - {"chunks", "frames"}
    assert loop.ending == "the time is over" and not loop.failed
    assert len(robot.commands) == loop.figures.steps + 1  # the last command holds
    assert not robot.commands[-1][:3].any()


@pytest.mark.parametrize("fault", ["hang", "nan", "raise", "killed", "shape"])
def test_a_broken_policy_makes_the_arm_hold_ramp_and_recover(fault):
    loop, robot, _, stages = drive(fault=fault, fault_at=1.0, fault_seconds=3.0)
    assert set(between(stages, 0.1, 1.0)) == {"run"}
    held = between(stages, 2.0, 4.0)
    assert held.index("ramp") > held.index("hold") and "run" not in held
    assert set(between(stages, 4.3, 6.0)) == {"run"}
    counts = loop.snapshot(6.0)["counts"]
    assert counts["hold_no_chunk"] == counts["ramp"] == counts["recovered"] == 1
    kind = {"raise": "error", "killed": "error", "hang": "stale"}.get(fault, fault)
    assert counts[kind] >= 1
    still = [place for place, (now, _) in zip(robot.places, stages, strict=False) if 2 < now < 4]
    assert np.ptp(np.array(still), axis=0).max() < 1e-9  # the arm stood
    share = TABLE.watchdog.ramp_to
    assert min(robot.shares) == pytest.approx(share, abs=0.1) and robot.shares[-1] == 1.0


def test_a_policy_that_never_comes_back_ends_the_run_in_one_line():
    config = ControlConfig(seconds=60.0, patience=4.0)
    loop, robot, _, stages = drive(config=config, fault="killed", fault_at=1.0, fault_seconds=0.0)
    assert loop.failed == "no chunk for 4 s (Killed: the policy's process was killed)"
    assert stages[-1][0] < 7 and not robot.commands[-1][:3].any()


def test_a_camera_that_is_lost_makes_the_arm_hold_within_the_watchdogs_time():
    loop, _, _, stages = drive(lost=(2.0, 4.0))
    first_hold = next(now for now, stage in stages if stage == "hold")
    assert 2.1 < first_hold <= 2.35  # a frame of 200 ms, and a control step
    assert set(between(stages, 4.3, 6.0)) == {"run"}
    assert loop.figures.counts["hold_no_frame"] == 1 and loop.figures.counts["camera_error"] > 1


def test_a_camera_that_stays_away_ends_the_run():
    config = ControlConfig(seconds=60.0, patience=3.0)
    loop, *_ = drive(lost=(1.0, np.inf), config=config)
    assert loop.failed == "no frame for 3 s (the camera is gone (the camera was unplugged))"


def test_an_arm_that_does_not_answer_holds():
    clock = VirtualClock()
    robot = Point(clock)
    loop = Loop(robot, Waves(), TABLE, ControlConfig(seconds=60.0, patience=2.0))

    def go_deaf(now):
        robot.deaf = now > 1.0

    virtual.run(loop, clock, 0.01, go_deaf)
    assert "no answer for 2 s" in loop.failed and loop.figures.counts["robot_error"] > 5
    assert not robot.commands[-1][:3].any()


def test_under_a_delay_the_prefix_is_what_was_done():
    _, robot, maker, _ = drive(latency=150.0)
    later = [prefix for prefix in maker.prefixes[2:] if prefix is not None]
    assert later and all(1 <= len(prefix) <= 4 for prefix in later)
    config = ControlConfig(seconds=3.0, prefix=False)
    _, _, plain, _ = drive(config=config, latency=150.0)
    assert all(prefix is None for prefix in plain.prefixes)


def test_a_policy_that_hung_is_not_taken_for_slow():
    loop, *_ = drive(fault="hang", fault_at=1.0, fault_seconds=3.0)
    assert loop.plan.latency() == pytest.approx(0.01)


def test_the_same_run_twice_is_the_same():
    first, second = (drive(latency=80.0)[1].commands for _ in range(2))
    assert np.array_equal(first, second)


def test_earlier_frames_are_a_control_step_apart():
    maker = Waves(frames=3)
    drive(maker)
    for given in maker.given[2:]:
        assert len(given) == 3


def test_a_dry_run_sends_nothing():
    config = ControlConfig(seconds=2.0, dry_run=True)
    loop, robot, _, _ = drive(config=config, fault="raise", fault_at=0.5, fault_seconds=0.0)
    assert robot.commands == [] and robot.shares == [] and loop.command is not None
