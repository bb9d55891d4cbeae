"""The guard: whatever comes in, no limit is exceeded; what was cut is counted."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from base import limits
from base.guard import KINDS, Guard, braking, coasting

TABLE = limits.read("table")
SMOOTH = dataclasses.replace(TABLE, acceleration=np.array([0.5, 0.8, 1.1]))
DUST = 2e-6  # of float32 and of the sums


def arm() -> limits.Limits:
    """Three joints, in radians; the hand of this arm has a box."""
    pose, ones = np.array([0.1, 0.2, 0.3]), np.ones(3)
    more = {"names": ["a", "b", "c"], "units": ["rad"] * 3, "metres": None, "kind": "joints"}
    more |= {"low": -1.5 * ones, "high": np.array([1.5, 1.2, 2.0]), "leash": 0.2 * ones}
    more |= {"velocity": np.array([1.0, 2.0, 3.0]), "acceleration": np.array([4.0, 6.0, 20.0])}
    box = np.array([[-0.5, -0.8, 0.1], [0.8, 0.8, 0.9]])
    return dataclasses.replace(TABLE, workspace=box, pose=pose, tolerance=ones, **more)


def reach(joints: np.ndarray) -> np.ndarray:
    """Where the hand of `arm` is: two links that turn on a post."""
    first, second = joints[1], joints[1] + joints[2]
    out = 0.4 * np.cos(first) + 0.3 * np.cos(second)
    up = 0.2 + 0.4 * np.sin(first) + 0.3 * np.sin(second)
    return np.array([out * np.cos(joints[0]), out * np.sin(joints[0]), up])


def hostile(rng: np.random.Generator, low, high):
    """An action, or what a broken policy may send in its place."""
    width = len(low)
    kind = rng.integers(12)
    if kind == 0:
        return np.full(width, rng.choice([np.nan, np.inf, -np.inf]))
    if kind == 1:
        return np.where(np.arange(width) == rng.integers(width), np.nan, 0.0)
    if kind == 2:
        return np.zeros(rng.integers(0, 9))
    if kind == 3:
        return [None, "run", np.zeros((2, width)), 3.0][rng.integers(4)]
    if kind == 4:
        return rng.normal(size=width) * 10.0 ** rng.integers(0, 300)
    if kind == 5:
        return rng.choice([low, high])
    return low + (high - low) * rng.random(width)


def run(bounds, kinematics, rng, steps, lag=0.0, pushes=0.0) -> Counter:
    """Drive a plant that follows, with hostile actions. Returns counts. Asserts every limit."""
    guard = Guard(bounds, bounds.hz, kinematics=kinematics)
    low, high = bounds.bounds()
    way_most = bounds.velocity / bounds.hz + DUST
    change_most = bounds.acceleration / bounds.hz**2 + 2 * DUST
    place, before, counts = bounds.pose.copy(), np.zeros(bounds.places), Counter()
    commanded = place.copy()
    mild = bounds.low, bounds.high
    for _ in range(steps):
        if rng.random() < pushes:
            place = place + rng.normal(size=bounds.places) * 0.05
        state = np.concatenate([place, rng.normal(size=3)])
        if rng.random() < 0.02:
            state = [state[:1], np.full(6, np.nan), None][rng.integers(3)]
        pushed_from = guard.reference.copy() if guard.reference is not None else None
        action = hostile(rng, *mild)
        safe = guard.check(state, action)
        counts.update(safe.counts)
        if safe.command is None:
            assert pushed_from is None
            continue
        command = safe.command.astype(np.float64)
        assert np.isfinite(command).all() and command.shape == (bounds.width,)
        if bounds.kind == "hand" or not pushes:
            assert (command >= bounds.low - DUST).all()
            assert (command <= bounds.high + DUST).all()
        start = guard.reference - guard.way  # after the leash
        way = command[:3] * bounds.metres if bounds.kind == "hand" else command - start
        assert (np.abs(way) <= way_most).all()
        if not safe.counts["hard_stop"]:
            assert (np.abs(way - before) <= change_most).all()
        if not pushes:
            assert not safe.counts["hard_stop"] or kinematics is not None
            commanded = start + way
            assert (commanded >= low - DUST).all() and (commanded <= high + DUST).all()
            if kinematics is not None:
                hand = kinematics(commanded)
                assert (hand >= bounds.workspace[0] - 1e-5).all()
                assert (hand <= bounds.workspace[1] + 1e-5).all()
        before = way
        place = place + (1 - lag) * (start + way - place)
    return counts


@pytest.mark.parametrize("lag", [0.0, 0.4])
@pytest.mark.parametrize("bounds", [TABLE, SMOOTH], ids=["table", "smooth"])
def test_a_hand_never_exceeds_a_limit(bounds, lag):
    counts = run(bounds, None, np.random.default_rng(0), 4000, lag)
    assert min(counts[kind] for kind in ("shape", "nan", "state", "joints")) > 50
    assert counts["acceleration"] > 50 and counts["hard_stop"] == 0


@pytest.mark.parametrize("kinematics", [None, reach], ids=["joints", "box"])
@pytest.mark.parametrize("lag", [0.0, 0.4])
def test_joints_never_exceed_a_limit(kinematics, lag):
    counts = run(arm(), kinematics, np.random.default_rng(1), 3000, lag)
    assert counts["velocity"] > 50 and counts["joints"] > 50
    assert (counts["workspace"] > 0) == (kinematics is not None)
    assert counts["hard_stop"] <= 0.01 * 3000


def test_an_arm_that_is_pushed_keeps_to_its_velocity():
    for bounds, kinematics in ((SMOOTH, None), (arm(), reach)):
        run(bounds, kinematics, np.random.default_rng(2), 2000, pushes=0.1)


@pytest.mark.long
def test_a_hundred_thousand_chunks_never_exceed_a_limit():
    """Of each chunk two actions, then the next chunk: 200,000 control steps, a few minutes."""
    counts = run(TABLE, None, np.random.default_rng(3), 80_000)
    counts += run(SMOOTH, None, np.random.default_rng(4), 60_000, lag=0.3)
    counts += run(arm(), reach, np.random.default_rng(5), 60_000, lag=0.2)
    assert min(counts[kind] for kind in KINDS if kind != "hard_stop") > 1000
    print(dict(counts))


def still(guard, place, action):
    return guard.check(np.concatenate([place, np.zeros(5)]), action)


def test_what_is_within_the_limits_stays_as_it_is():
    guard = Guard(TABLE, 10)
    for action in ([0.5, -0.5, 0.2, 1.0], [1, 1, -1, -1], [0, 0, 0, -0.3]):
        guard.anchor(TABLE.pose)
        safe = still(guard, TABLE.pose, np.array(action))
        assert safe.command.tolist() == pytest.approx(action) and not safe.counts


def test_a_hold_slows_down_and_keeps_the_gripper():
    guard = Guard(SMOOTH, 10)
    for _ in range(6):
        safe = still(guard, TABLE.pose, np.array([1, 0, 0, 1.0]))
    moving = [still(guard, TABLE.pose, None) for _ in range(8)]
    ways = [float(each.command[0]) for each in moving]
    assert ways == sorted(ways, reverse=True) and ways[0] > 0 and ways[-1] == 0
    assert all(each.command[3] == 1.0 and not each.counts for each in moving)
    assert safe.counts["acceleration"] <= 1


def test_at_a_fifth_of_the_speed_the_way_is_a_fifth():
    guard = Guard(TABLE, 10, speed=0.2)
    for _ in range(10):
        safe = still(guard, TABLE.pose, np.array([1, 0, 0, 1.0]))
    assert float(safe.command[0]) == pytest.approx(0.2)


def test_an_emergency_stop_stops_at_once():
    guard = Guard(SMOOTH, 10)
    for _ in range(6):
        still(guard, TABLE.pose, np.array([1, 1, 0, 1.0]))
    assert guard.stop().tolist() == [0, 0, 0, 1]
    joints = Guard(arm(), 10)
    assert joints.stop() is None  # nobody knows where it is
    joints.check(arm().pose, np.array([1.0, 1, 1]))
    place = joints.reference.copy()
    assert joints.stop() == pytest.approx(place)


def test_joints_that_are_nowhere_get_no_command():
    safe = Guard(arm(), 10).check(np.full(3, np.nan), np.zeros(3))
    assert safe.command is None and safe.counts["state"] == 1


def test_braking_and_coasting_agree():
    rng = np.random.default_rng(0)
    room, change = rng.random(1000) * 3, 0.01 + rng.random(1000)
    way = braking(room, change)
    assert way + coasting(way, change) == pytest.approx(room)
    assert braking(np.array([-1.0, 0.0]), np.array([1.0, 1.0])).tolist() == [0, 0]
