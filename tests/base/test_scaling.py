"""Scaling: percentiles become -1 and 1, and back; widths are checked."""

import numpy as np
import pytest

from base.errors import UserError
from base.scaling import Scaling


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
