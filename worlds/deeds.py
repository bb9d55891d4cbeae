"""Whether an order was carried out: a claim about the table, judged by the grammar of scenes."""

from dataclasses import dataclass

from worlds import orders
from worlds.layouts import HALF_HEIGHT, HALF_WIDTH, Layout, Thing, as_object
from worlds.orders import Order

LIFTED = 0.04  # metres above its start: a thing that was picked
RAISED = 0.01  # metres above its start: a thing that was not only pushed
RESTING = 0.005  # metres between a thing's height and the height at which it would rest
MOVED = 0.02  # metres: another thing that was touched
ON_TOP = 0.015  # metres between the centres of stacked things, seen from above
OPEN = 2 * HALF_WIDTH + 0.006  # metres between the fingers: they touch nothing


@dataclass
class Table:
    """What is true of a table at a moment.

    now: where everything is. start: where it was. peaks: the largest height of each thing's centre
    since the start, in metres. opening: metres between the fingers.
    """

    now: Layout
    start: Layout
    peaks: list[float]
    opening: float


def is_done(order: Order, table: Table) -> bool:
    """Whether the order is carried out. Any thing that fits the noun may be the thing."""
    for index, thing in enumerate(table.now.things):
        if not order.noun.fits(as_object(thing)):
            continue
        if thing_is_done(order, table, index, thing):
            return True
    return False


def thing_is_done(order: Order, table: Table, index: int, thing: Thing) -> bool:
    start = table.start.things[index]
    if order.verb == "pick":
        return thing.z - start.z >= LIFTED
    if order.verb == "push":
        pushed = table.peaks[index] - start.z < RAISED
        return pushed and rests(thing, HALF_HEIGHT) and orders.is_true(order, thing, None)
    if table.opening < OPEN:
        return False  # the gripper still holds it
    for other in table.now.fitting(order.other):
        if other is thing:
            continue
        if order.verb == "stack":
            close = other.away(thing.x, thing.y) < ON_TOP
            if close and rests(thing, other.z + 2 * HALF_HEIGHT):
                return True
        elif rests(thing, HALF_HEIGHT) and orders.is_true(order, thing, other):
            return True
    return False


def rests(thing: Thing, height: float) -> bool:
    return abs(thing.z - height) < RESTING


def wrong_things(order: Order, table: Table) -> list[int]:
    """The things that no order was about, and that were moved or lifted: their indices."""
    wrong = []
    for index, (thing, start) in enumerate(zip(table.now.things, table.start.things, strict=True)):
        if order.noun.fits(as_object(thing)):
            continue
        lifted = table.peaks[index] - start.z > RAISED
        if lifted or start.away(thing.x, thing.y) > MOVED:
            wrong.append(index)
    return wrong
