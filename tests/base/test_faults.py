"""Troubles on purpose come when they should, and go again."""

import math

import numpy as np
import pytest

from base.errors import UserError
from base.faults import Killed, Troubled, Troubles
from base.virtual import VirtualClock
from tests.making.driven import Waves


def troubled(fault, **more):
    clock = VirtualClock()
    maker = Troubled(Waves(), Troubles(fault=fault, fault_at=1.0, fault_seconds=2.0, **more), clock)
    maker.begin("go", 0)
    return maker, clock


@pytest.mark.parametrize("moment", [0.9, 3.0])
@pytest.mark.parametrize("fault", ["hang", "nan", "raise", "killed", "shape"])
def test_outside_of_its_time_nothing_is_wrong(fault, moment):
    maker, clock = troubled(fault, latency=50.0)
    clock.wait_until(moment)
    made = maker.make({}, [], None)
    assert made.actions.shape == (8, 4) and np.isfinite(made.actions).all()
    assert clock.taken() == pytest.approx(0.05)


def test_each_fault():
    made = {}
    for fault in ("nan", "shape"):
        maker, clock = troubled(fault)
        clock.wait_until(1.5)
        made[fault] = maker.make({}, [], None).actions
    assert np.isnan(made["nan"]).all() and made["shape"].shape == (7, 4)
    for fault, kind in (("raise", RuntimeError), ("killed", Killed)):
        maker, clock = troubled(fault)
        clock.wait_until(1.5)
        with pytest.raises(kind):
            maker.make({}, [], None)
    maker, clock = troubled("hang")
    clock.wait_until(1.5)
    maker.make({}, [], None)
    assert clock.taken() == pytest.approx(1.5)
    assert Troubles(fault_seconds=0.0).until() == math.inf


def test_wrong_flags():
    with pytest.raises(UserError, match="did you mean hang"):
        Troubles(fault="hangs")
    with pytest.raises(UserError, match="below 1"):
        Troubles(drop_frames=1.0)
