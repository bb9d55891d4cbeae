"""Scaling: percentiles become -1 and 1, and back; widths are checked."""

import numpy as np
import pytest

from base.errors import UserError
from base.scaling import Offsets, Scaling


def test_there_and_back():
    rng = np.random.default_rng(0)
    actions = rng.normal(3, 2, (1000, 2)).astype(np.float32)
    states = rng.normal(-1, 5, (1000, 3)).astype(np.float32)
    scaling = Scaling.measured(actions, states)
    inside = np.quantile(actions, [0.02, 0.5, 0.97], axis=0)
    assert np.allclose(scaling.restore(scaling.shrink(inside)), inside, atol=1e-5)
    assert np.abs(scaling.shrink(actions)).max() == 1
    plain = scaling.plain(states)
    assert np.allclose(plain.mean(0), 0, atol=1e-5) and np.allclose(plain.std(0), 1, atol=1e-5)
    again = Scaling.from_dict(scaling.to_dict())
    assert np.allclose(again.shrink(actions), scaling.shrink(actions))


def test_a_number_that_never_changes_rests_at_0():
    actions = np.full((50, 1), 7.0, np.float32)
    scaling = Scaling.measured(actions, actions)
    assert scaling.shrink(actions).max() == 0
    assert scaling.plain(actions).max() == 0
    assert scaling.restore(np.zeros((1, 1))) == 7


def test_units_may_stay_as_they_are():
    scaling = Scaling.none(2, 3)
    actions = np.array([[-0.3, 0.9]])
    assert (scaling.shrink(actions) == actions).all() and (
        scaling.restore(actions) == actions
    ).all()


def test_another_width_is_refused():
    with pytest.raises(UserError, match="4 and 8, which the checkpoint"):
        Scaling.none(4, 8).check(6, 8)


def test_offsets_are_seen_from_the_joints_where_a_chunk_begins():
    rng = np.random.default_rng(0)
    states = rng.uniform(-90, 90, (500, 9)).astype(np.float32)
    steps = np.arange(1, 5)[None, :, None]
    chunks = states[:, None, :3] + steps * rng.uniform(-2, 2, (500, 4, 3))
    chunks[..., -1] = rng.choice([0, 21], (500, 4))
    offsets = Offsets.measured(chunks, states)
    # A later step may be farther away. The gripper is no offset.
    assert offsets.high[:, 0] == pytest.approx([2, 4, 6, 8], rel=0.1)
    assert offsets.low[:, -1].tolist() == [0] * 4 and offsets.high[:, -1].tolist() == [21] * 4
    again = Offsets.from_dict(offsets.to_dict())
    inside = again.restore(again.shrink(chunks, states), states)
    assert np.quantile(np.abs(inside - chunks), 0.97) < 1e-3
    # A prefix of a chunk has the scaling of its steps.
    first = again.shrink(chunks[:, :2], states)
    assert (first == again.shrink(chunks, states)[:, :2]).all()
    # The same movement from other joints is the same chunk.
    moved = states + np.array([10, -5, 0, 0, 0, 0, 0, 0, 0], np.float32)
    other = chunks + np.array([10, -5, 0])
    assert again.shrink(other, moved) == pytest.approx(again.shrink(chunks, states), abs=1e-4)
