"""Still moments of the table with many orders each: they teach what words name, and where it is.

800 demonstrations with an order each do not teach the words: one order per picture is too few.
A still costs a few milliseconds, and serves several orders.

Shapes: S stills, M orders per still, N things and zones at most, K cameras.
"""

import copy
from dataclasses import dataclass

import numpy as np

from base.observations import MOST, padded
from worlds import orders, tasks
from worlds.layouts import HALF_HEIGHT, REACH, SHAPES, ZONES, Layout, Thing
from worlds.orders import Order
from worlds.scenes import COLOURS

KINDS = (*COLOURS, *SHAPES, *ZONES)  # the attributes of a thing in a simulator's list
NOTHING = -1  # in `index`: the order names no other thing
HELD = 0.25  # share of the stills in which the hand carries a thing
STACKED = 0.1  # share of the stills in which a thing lies on another
OVER = 0.5  # share of the stills in which the hand is over a thing or a zone, and hides part of it
ASIDE = 0.015  # metres: deviation of such a hand from the thing's middle
SLACK = (0.004, 0.009, 0.006)  # metres in x, y, z: how far a held thing may be from the hand


@dataclass
class Still:
    """A moment: the layout as it is now, and the hand's place in metres."""

    layout: Layout
    hand: tuple[float, float, float]
    held: bool


def kinds_of(layout: Layout) -> np.ndarray:
    """The attributes of everything as 0 and 1: (MOST, len(KINDS)) uint8."""
    kinds = np.zeros((MOST, len(KINDS)), np.uint8)
    for row, thing in zip(kinds, layout.everything(), strict=False):
        row[KINDS.index(thing.colour)] = 1
        row[KINDS.index(thing.shape)] = 1
    return kinds


def places_of(layout: Layout) -> np.ndarray:
    return padded(np.array([(thing.x, thing.y, thing.z) for thing in layout.everything()]))


def position(thing: Thing | None, layout: Layout) -> int:
    """Where a thing stands in `layout.everything()`; NOTHING for None."""
    if thing is None:
        return NOTHING
    return next(i for i, each in enumerate(layout.everything()) if each is thing)


def sample_still(rng: np.random.Generator, split: str) -> Still:
    """A layout, with a thing in the hand or on another thing now and then.

    The hand hides things when it matters: while it grips, and while it carries a thing to another.
    Hands at random places do so rarely, hence OVER.
    """
    layout = tasks.split_layout(rng, split)
    thing = layout.things[int(rng.integers(len(layout.things)))]
    chance = rng.random()
    held = chance < HELD
    hand = sample_hand(rng, layout, thing if held else None)
    if held:
        thing.x, thing.y, thing.z = (np.array(hand) + rng.uniform(-1, 1, 3) * SLACK).tolist()
    elif chance < HELD + STACKED:
        others = [each for each in layout.things if each is not thing]
        other = others[int(rng.integers(len(others)))]
        thing.x, thing.y, thing.z = other.x, other.y, 3 * HALF_HEIGHT
    return Still(layout, hand, held)


def sample_hand(
    rng: np.random.Generator, layout: Layout, held: Thing | None
) -> tuple[float, float, float]:
    """Where the hand is, in metres: anywhere, or over something. held: the thing in the hand."""
    anywhere = (*rng.uniform(-REACH, REACH, 2), rng.uniform(0.016, 0.15))
    if rng.random() > OVER:
        return tuple(float(number) for number in anywhere)
    below = [each for each in layout.everything() if each is not held]
    place = below[int(rng.integers(len(below)))]
    x, y = rng.normal((place.x, place.y), ASIDE)
    # A held thing is on its way down: to the table, or onto another thing.
    lowest = 0.016 if held is None else 3 * HALF_HEIGHT
    return float(x), float(y), float(rng.uniform(lowest, 0.12))


def sample_orders(
    rng: np.random.Generator, layout: Layout, split: str, number: int
) -> list[tasks.Task]:
    """Orders at a layout; a layout with few orders says some of them again."""
    found = []
    # A held thing may leave no room for a verb, so a few more draws than orders.
    for _ in range(4 * number):
        task = tasks.task_at(rng, layout, tasks.sample_verb(rng), split)
        if task is not None:
            found.append(task)
        if len(found) == number:
            break
    while 0 < len(found) < number:
        found.append(copy.copy(found[int(rng.integers(len(found)))]))
    return found


def goal_of(task: tasks.Task) -> tuple[float, float, float]:
    """Where the thing's centre must go, in metres."""
    x, y = orders.goal(task.order, task.thing, task.other)
    if task.order.verb == "pick":
        return x, y, task.thing.z
    return x, y, orders.height_of(task.order, task.other)


def is_plain(order: Order) -> bool:
    """Whether the order has a single goal: "next to" has four."""
    return order.word != orders.NEXT_TO


# --- as arrays ---------------------------------------------------------------------------------

PARTS = ("kinds", "places", "real", "words", "take", "put", "index")


def rows_of(still: Still, said: list[tasks.Task], words: np.ndarray) -> dict[str, np.ndarray]:
    """A still and its M orders as arrays. words: (M, LONGEST) ids of the orders."""
    layout = still.layout
    takes, puts, indices = [], [], []
    for task in said:
        takes.append((task.thing.x, task.thing.y, task.thing.z))
        puts.append(goal_of(task))
        indices.append((position(task.thing, layout), position(task.other, layout)))
    return {
        "kinds": kinds_of(layout),
        "places": places_of(layout),
        "real": np.arange(MOST) < len(layout.everything()),
        "words": words,
        "take": np.array(takes, np.float32),
        "put": np.array(puts, np.float32),
        "index": np.array(indices, np.int8),
    }
