"""A wall in the middle of the table: whoever carries a thing to the other side goes around either
end, and both are right. It stands only in tasks of the split `around`.

Positions are metres, as in layouts.py. The wall is along y; the hand cannot pass over it.
"""

import numpy as np

from worlds.layouts import Layout, Thing

HALF = np.array([0.006, 0.10, 0.15])  # half of its thickness, length and height
HIDDEN = (0.0, 0.0, -1.0)  # its place where there is none: under the table
PLACE = (0.0, 0.0, float(HALF[2]))
ROOM = 0.065  # between the wall and a thing or a zone beside it
CLEAR = 0.050  # between the wall and the middle of a hand that passes, with a thing in its fingers
CENTRAL = 0.09  # largest |y| of the thing and its zone: the way around either end is alike
NEARLY = 0.012  # a hand this close to a corner of its way takes the next part


def has_room(layout: Layout) -> bool:
    """Whether the wall would touch nothing."""
    length = HALF[1] + ROOM
    return all(abs(each.x) > ROOM or abs(each.y) > length for each in layout.everything())


def between(thing: Thing, zone: Thing) -> bool:
    """Whether the wall stands between a thing and its zone, and both ends are about as far."""
    central = abs(thing.y) < CENTRAL and abs(zone.y) < CENTRAL
    return central and thing.x * zone.x < 0


def way_around(hand: np.ndarray, goal: np.ndarray, end: int) -> np.ndarray:
    """Where a hand (3,) on its way to a goal (3,) goes next: the goal, or a corner of its way.

    end: 1 goes around the end that is away from the viewer, -1 around the near end. A hand that
    is beyond an end already passes there. The height is the goal's.
    """
    beside = abs(hand[0]) < CLEAR - NEARLY
    if hand[0] * goal[0] > 0 and not beside:
        return goal
    corner = HALF[1] + CLEAR
    x, y, height = hand[0], hand[1], goal[2]
    if abs(y) < corner - NEARLY:
        # Not beyond an end yet: along the wall, at some distance.
        away = np.sign(x) * max(abs(x), CLEAR)
        return np.array([away, end * corner, height])
    return np.array([np.sign(goal[0]) * CLEAR, np.sign(y) * max(abs(y), corner), height])
