"""The wall: the way around either end never meets it, and both ends are used."""

import numpy as np
import pytest

from worlds import tasks, wall
from worlds.layouts import Layout, Thing


@pytest.mark.parametrize("end", [-1, 1])
def test_the_way_around_never_meets_the_wall(end):
    rng = np.random.default_rng(0)
    for _ in range(200):
        hand = np.array([-rng.uniform(0.05, 0.2), rng.uniform(-0.2, 0.2), 0.09])
        goal = np.array([rng.uniform(0.07, 0.2), rng.uniform(-0.09, 0.09), 0.09])
        central = abs(hand[1]) < wall.HALF[1]
        for _ in range(60):
            step = wall.way_around(hand, goal, end) - hand
            hand = hand + np.clip(step, -0.03, 0.03)
            beside = abs(hand[0]) < wall.CLEAR - wall.NEARLY - 1e-9
            assert not beside or abs(hand[1]) > wall.HALF[1] + 0.03
            if central and beside:
                assert np.sign(hand[1]) == end
        assert np.abs(hand - goal).max() < 1e-9


def test_a_wall_needs_room_and_stands_between():
    thing, zone = Thing("star", "red", -0.1, 0.0), Thing("plate", "blue", 0.12, 0.05, 0.0)
    assert wall.has_room(Layout([thing], [zone])) and wall.between(thing, zone)
    assert not wall.has_room(Layout([Thing("star", "red", 0.03, 0.1)], [zone]))
    assert wall.has_room(Layout([Thing("star", "red", 0.03, 0.18)], [zone]))
    assert not wall.between(thing, Thing("plate", "blue", -0.12, 0.05, 0.0))
    assert not wall.between(Thing("star", "red", -0.1, 0.15), zone)


def test_the_expert_goes_around_both_ends():
    pytest.importorskip("mujoco")
    from worlds.recording import record
    from worlds.table import TableEnv

    env, ends = TableEnv(), []
    for number in range(6):
        rng = np.random.default_rng([1, number])
        task = tasks.sample_task(rng, "around")
        assert task.wall and task.text.startswith(tasks.AROUND)
        rows = record(env, task, rng, noise=False)
        assert rows["done"][-1]
        x, y = rows["state"][:, 0], rows["state"][:, 1]
        # Where the hand crosses the middle of the table with the thing.
        crossing = np.flatnonzero(np.diff(np.sign(x)))[-1]
        ends.append(np.sign(y[crossing]))
        assert abs(y[crossing]) > wall.HALF[1]
    assert set(ends) == {-1, 1}


def test_a_typed_order_finds_a_table_with_a_wall():
    text = tasks.AROUND + "put the red star on the blue plate"
    task = tasks.task_for(np.random.default_rng(0), text)
    assert task.wall and wall.between(task.thing, task.other)
    plain = tasks.task_for(np.random.default_rng(0), "put the red star on the blue plate")
    assert not plain.wall
