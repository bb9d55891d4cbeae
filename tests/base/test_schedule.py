"""The plan: when a chunk begins, what stays, and what is late, stale or broken."""

import numpy as np
import pytest

from base.driving import Made
from base.schedule import Plan

HZ = 10.0


def chunk(value=0.0):
    rows = np.zeros((8, 4), np.float32)
    rows[:, 0] = value + np.arange(8) / 100
    return Made(rows)


def make_plan(**more):
    return Plan(
        **({"length": 8, "width": 4, "hz": HZ, "speed": 1.0, "frozen": True} | more), stale=1.0
    )


def follow(plan, steps, first=0, latency=0.0):
    """Control steps from number `first` on; the policy looks when the plan says so. Its asks."""
    asks, coming, taken = [], None, []
    for number in range(first, first + steps):
        now = number / HZ
        begin = plan.begin_at((number - 1) / HZ)
        if coming is None and begin is not None and begin < now:
            asks.append(plan.ask(begin, begin))
            coming = asks[-1], begin + latency
        if coming is not None and coming[1] <= now:
            plan.deliver(coming[0], chunk(len(asks)), coming[1])
            coming = None
        found = plan.next(now)
        taken.append(None if found is None else float(found[0][0]))
        if found is not None:
            plan.did(now, found[0])
    return asks, taken


def test_a_new_chunk_begins_when_half_is_left():
    plan = make_plan()
    asks, taken = follow(plan, 22, latency=0.02)
    assert taken[0] is None  # there was nothing yet
    assert taken[1:6] == pytest.approx([1, 1.01, 1.02, 1.03, 2.0], abs=1e-3)
    assert plan.counts == {"chunks": 6}
    # The look is as late as the latency allows: a moment before the control step.
    assert asks[1].asked == pytest.approx(0.5 - 0.03, abs=1e-6)
    assert asks[1].prefix is None and asks[1].begun == 4  # nothing is done meanwhile


def test_what_is_done_meanwhile_is_given():
    plan = make_plan()
    asks, taken = follow(plan, 40, latency=0.25)
    later = asks[3]
    assert later.prefix.shape[1] == 4 and 1 <= len(later.prefix) <= 3
    old = later.begun - asks[2].begun
    assert later.prefix[:, 0] == pytest.approx(3 + (old + np.arange(len(later.prefix))) / 100)
    assert None not in taken[8:]
    plain = make_plan(frozen=False)
    asks, _ = follow(plain, 20, latency=0.25)
    assert all(ask.prefix is None for ask in asks)


def test_actions_done_between_frame_and_look_are_part_of_the_prefix():
    plan = make_plan()
    follow(plan, 4, latency=0.0)
    done = plan.done
    ask = plan.ask(0.36, 0.17)  # at the end of the first action, two actions ago
    assert ask.begun == done - 2
    assert ask.prefix[:2, 0] == pytest.approx(
        [plan.history[-2].action[0], plan.history[-1].action[0]]
    )


def test_a_late_chunk_is_counted_and_followed_in_its_middle():
    plan = make_plan()
    follow(plan, 6, latency=0.02)
    ask = plan.ask(0.52, 0.5)
    for number in range(6, 9):
        found = plan.next(number / HZ)
        plan.did(number / HZ, found[0])
    plan.deliver(ask, chunk(7), 0.85)
    found = plan.next(0.9)
    assert plan.counts["late"] == 1
    assert found[0][0] == pytest.approx(7 + (plan.done - ask.begun) / 100)


def test_nothing_gets_past_while_the_arm_stands_still():
    plan = make_plan()
    plan.next(0.0)
    ask = plan.ask(0.0, 0.0)
    for number in range(1, 9):
        assert plan.next(number / HZ) is None
    plan.deliver(ask, chunk(1), 0.85)
    assert plan.next(0.9)[0][0] == 1.0


@pytest.mark.parametrize(
    "made, kind",
    [
        (Made(np.full((8, 4), np.nan, np.float32)), "nan"),
        (Made(np.full((8, 4), np.inf, np.float32)), "nan"),
        (Made(np.zeros((7, 4), np.float32)), "shape"),
        (Made(np.zeros(4, np.float32)), "shape"),
        (Made(np.array([["x"] * 4] * 8)), "shape"),
        (ValueError("no"), "error"),
    ],
)
def test_what_is_no_chunk_is_counted_and_dropped(made, kind):
    plan = make_plan()
    plan.next(0.0)
    plan.deliver(plan.ask(0.0, 0.0), made, 0.05)
    assert plan.next(0.1) is None
    assert plan.counts == {kind: 1}
    assert (plan.error == "ValueError: no") == (kind == "error")


def test_a_chunk_from_an_old_frame_is_stale():
    plan = make_plan()
    plan.next(0.0)
    plan.deliver(plan.ask(0.0, 0.0), chunk(), 1.15)
    assert plan.next(1.2) is None and plan.counts == {"stale": 1}


def test_at_a_fifth_of_the_speed_an_action_takes_five_steps():
    plan = make_plan(speed=0.2)
    _, taken = follow(plan, 30, latency=0.02)
    assert taken[1:6] == [taken[1]] * 5 and taken[6] == pytest.approx(taken[1] + 0.01)
    assert plan.done == pytest.approx(29 * 0.2)
    shares = make_plan(speed=0.2)
    shares.next(0.0)
    shares.deliver(shares.ask(0.0, 0.0), chunk(), 0.02)
    found = []
    for number in range(1, 6):
        found.append(shares.next(number / HZ)[1])
        shares.did(number / HZ, np.zeros(4))
    assert found == pytest.approx([1 / 5, 1 / 4, 1 / 3, 1 / 2, 1])
