"""Deeds: an order that was done is judged done, and its neighbours are not."""

import copy
import dataclasses

import pytest

from worlds import deeds, orders
from worlds.deeds import Table
from worlds.layouts import HALF_HEIGHT, Layout, Thing
from worlds.orders import NEXT_TO, Order
from worlds.reader import Noun

OPEN = deeds.OPEN + 0.01
STAR, HEART, PLATE, TRAY = (
    Noun(colour="red", shape="star"),
    Noun(colour="blue", shape="heart"),
    Noun(colour="green", shape="plate"),
    Noun(colour="white", shape="tray"),
)


def start() -> Layout:
    things = [Thing("star", "red", -0.02, 0.0), Thing("heart", "blue", 0.07, 0.09)]
    zones = [Thing("plate", "green", 0.12, -0.15, 0.0), Thing("tray", "white", -0.1, 0.15, 0.0)]
    return Layout(things, zones)


def moved(x: float, y: float, z: float = HALF_HEIGHT, opening: float = OPEN, index: int = 0):
    """A table whose star, or other thing, was moved."""
    before, now = start(), start()
    thing = now.things[index]
    thing.x, thing.y, thing.z = x, y, z
    return Table(now, before, [each.z for each in now.things], opening)


def done_table(order: Order) -> Table:
    layout = start()
    other = layout.fitting(order.other)[0] if order.other != Noun() else None
    x, y = orders.goal(order, layout.things[0], other)
    return moved(x, y, orders.height_of(order, other))


EVERY = [
    Order("put", STAR, "on", PLATE),
    Order("put", STAR, "in", TRAY),
    *(Order("put", STAR, word, HEART) for word in orders.RELATIONS),
    *(Order("push", STAR, word) for word in orders.SIDES),
    Order("stack", STAR, "", HEART),
]


@pytest.mark.parametrize("order", EVERY, ids=str)
def test_what_was_done_is_done_and_nothing_is_done_at_the_start(order):
    assert deeds.is_done(order, done_table(order))
    assert not deeds.is_done(order, moved(-0.02, 0.0))


@pytest.mark.parametrize("order", EVERY, ids=str)
def test_its_neighbours_are_not_done(order):
    zones = (PLATE, TRAY)
    for neighbour in EVERY:
        # A place next to the heart may also lie at a side of the table: only like claims exclude
        # each other.
        like = neighbour.other == order.other or (neighbour.other in zones and order.other in zones)
        if neighbour != order and neighbour.verb == order.verb and like:
            assert not deeds.is_done(neighbour, done_table(order)), (order, neighbour)
    if order.verb != "push":  # the heart lies at the back from the start
        other_thing = dataclasses.replace(order, noun=HEART)
        assert not deeds.is_done(other_thing, done_table(order))


def test_a_pick_is_a_lift():
    order = Order("pick", STAR)
    assert deeds.is_done(order, moved(-0.02, 0, HALF_HEIGHT + 0.041, 0.03))
    assert not deeds.is_done(order, moved(-0.02, 0, HALF_HEIGHT + 0.039, 0.03))
    assert not deeds.is_done(order, moved(0.07, 0.09, HALF_HEIGHT + 0.05, 0.03, index=1))


@pytest.mark.parametrize("order", EVERY, ids=str)
def test_what_is_still_in_the_air_or_in_the_hand_is_not_done(order):
    table = done_table(order)
    held = dataclasses.replace(table, opening=0.037)
    assert deeds.is_done(order, held) == (order.verb == "push")
    table.now.things[0].z += 0.006
    assert not deeds.is_done(order, table)


def test_a_carried_thing_was_not_pushed():
    table = done_table(Order("push", STAR, "right"))
    table.peaks[0] += 0.02
    assert not deeds.is_done(Order("push", STAR, "right"), table)


def test_any_of_two_twins_will_do():
    before = start()
    before.things.append(Thing("star", "red", 0.15, 0.15))
    for index in (0, 2):
        now = copy.deepcopy(before)
        now.things[index].z += 0.05
        table = Table(now, before, [each.z for each in now.things], 0.03)
        assert deeds.is_done(Order("pick", STAR), table)
        assert deeds.wrong_things(Order("pick", STAR), table) == []


def test_next_to_is_near_on_any_side():
    order = Order("put", STAR, NEXT_TO, HEART)
    for x, y in ((-0.01, 0.09), (0.15, 0.09), (0.07, 0.01), (0.07, 0.17)):
        assert deeds.is_done(order, moved(x, y))
    assert not deeds.is_done(order, moved(-0.15, 0.09))


def test_wrong_things_are_named():
    order = Order("pick", STAR)
    assert deeds.wrong_things(order, moved(0.2, 0.2)) == []
    assert deeds.wrong_things(order, moved(0.10, 0.09, index=1)) == [1]
    assert deeds.wrong_things(order, moved(0.08, 0.09, index=1)) == []
    lifted = moved(0.07, 0.09, index=1)
    lifted.peaks[1] += 0.02
    assert deeds.wrong_things(order, lifted) == [1]
