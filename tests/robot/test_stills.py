"""Stills: what is labelled is true, orders suit the layout, held-out words never occur."""

import numpy as np
import pytest

from robot import stills
from worlds import orders, tasks
from worlds.scenes import held_pair


@pytest.mark.parametrize("seed", range(8))
def test_labels_are_of_the_named_things(seed):
    rng = np.random.default_rng(seed)
    still = stills.sample_still(rng, "train")
    said = stills.sample_orders(rng, still.layout, "train", 5)
    rows = stills.rows_of(still, said, np.zeros((len(said), 24), np.int16))
    assert len(said) in (0, 5)
    for task, take, (thing, other) in zip(said, rows["take"], rows["index"], strict=True):
        read = orders.read(task.text)
        found = still.layout.everything()[thing]
        assert found in still.layout.fitting(read.noun)
        assert np.allclose(take, (found.x, found.y, found.z))
        assert np.allclose(rows["places"][thing], take)
        assert (other == stills.NOTHING) == (task.other is None)
        names = {stills.KINDS[i] for i in np.flatnonzero(rows["kinds"][thing])}
        assert names == {found.colour, found.shape}
        assert not held_pair(found.colour, found.shape)
    assert rows["real"].sum() == len(still.layout.everything())


def test_goals_are_those_of_the_orders():
    rng = np.random.default_rng(3)
    seen = set()
    for _ in range(60):
        task = tasks.sample_task(rng, "train")
        x, y, z = stills.goal_of(task)
        seen.add(task.order.verb)
        if task.order.verb == "pick":
            assert (x, y, z) == (task.thing.x, task.thing.y, task.thing.z)
        if task.order.verb == "stack":
            assert (x, y) == (task.other.x, task.other.y)
            assert z == pytest.approx(task.other.z + 0.03)
    assert seen == set(orders.VERBS)


def test_a_held_thing_is_in_the_hand():
    rng = np.random.default_rng(0)
    held = [still for still in (stills.sample_still(rng, "train") for _ in range(60)) if still.held]
    assert 5 < len(held) < 30
    for still in held:
        places = np.array([(thing.x, thing.y, thing.z) for thing in still.layout.things])
        away = np.abs(places - still.hand)
        assert (away <= np.array(stills.SLACK) + 1e-9).all(1).any()


def test_the_hand_is_often_over_something():
    """There it hides what a policy needs to see when it grips."""
    rng = np.random.default_rng(0)
    over = 0
    for _ in range(200):
        still = stills.sample_still(rng, "train")
        places = np.array([(each.x, each.y) for each in still.layout.everything()])
        distances = np.linalg.norm(places - still.hand[:2], axis=1)
        over += distances.min() < 0.03 if not still.held else np.sort(distances)[1] < 0.03
    assert 0.4 < over / 200 < 0.75
