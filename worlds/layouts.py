"""Layouts of a table: which things lie on it, where, and which pairs of words are held out.

A layout is 3 to 6 things and two zones, seen from above. Things are flat blocks with the outlines
and colours of scenes.py. Zones are coloured plates and trays. `as_scene` turns a table into a
`Scene`, so the claims of judge.py say what is true of it.

Everything is a function of the generator passed in. Positions are metres from the table's centre:
x grows to the right, y grows away from the viewer, z grows upwards.
"""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from worlds.reader import Noun
from worlds.scenes import COLOURS, Object, Scene, held_pair, pick

SHAPES = ("circle", "square", "triangle", "star", "cross", "heart")
ZONES = ("plate", "tray")
SPLITS = ("val", "held_pair", "held_relation", "held_wording", "adversarial", "crowd", "camera")

SIDE = 0.48  # of the square that a scene shows
REACH = 0.20  # the largest |x| and |y| of a thing or a goal
RADIUS = 0.026  # of a thing's circumscribed circle
HALF_WIDTH = 0.019  # of the box that a thing is to the physics
HALF_HEIGHT = 0.015
ZONE_RADIUS = 0.050
APART = 0.088  # between the centres of two things: an open gripper fits between them
FREE = 0.072  # between a goal and any other thing: an opening gripper touches nothing
TRIES = 200


@dataclass
class Thing:
    """A thing or a zone. z: height of its centre; zones lie at 0."""

    shape: str
    colour: str
    x: float = 0.0
    y: float = 0.0
    z: float = HALF_HEIGHT

    def is_zone(self) -> bool:
        return self.shape in ZONES

    def noun(self) -> Noun:
        return Noun(colour=self.colour, shape=self.shape)

    def name(self) -> str:
        return f"{self.colour} {self.shape}"

    def away(self, x: float, y: float) -> float:
        """Metres from its centre to (x, y), seen from above."""
        return math.hypot(self.x - x, self.y - y)


@dataclass
class Layout:
    """The things in random order, then the zones."""

    things: list[Thing]
    zones: list[Thing]

    def everything(self) -> list[Thing]:
        return self.things + self.zones

    def fitting(self, noun: Noun) -> list[Thing]:
        """The things and zones that a noun names. "The red thing" is no zone."""
        found = self.everything() if noun.shape else self.things
        return [thing for thing in found if noun.fits(as_object(thing))]

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)


def layout_from_dict(values: dict) -> Layout:
    """The layout that `Layout.to_dict` wrote."""
    things = [Thing(**thing) for thing in values["things"]]
    return Layout(things, [Thing(**zone) for zone in values["zones"]])


# --- a table as a scene ------------------------------------------------------------------------


def as_object(thing: Thing) -> Object:
    """The thing seen from above, in the units of scenes.py: y grows towards the viewer."""
    radius = ZONE_RADIUS if thing.is_zone() else RADIUS
    return Object(
        shape=thing.shape,
        colour=thing.colour,
        size="large" if thing.is_zone() else "small",
        fill="solid",
        x=0.5 + thing.x / SIDE,
        y=0.5 - thing.y / SIDE,
        radius=radius / SIDE,
    )


def as_scene(layout: Layout) -> Scene:
    """The table as a scene: zones lie behind things."""
    return Scene([as_object(thing) for thing in layout.zones + layout.things])


# --- sampling ----------------------------------------------------------------------------------


def sample_kind(rng: np.random.Generator, pairs: str) -> Thing:
    """A thing without a place. pairs: "seen" avoids the held-out pairs, "held" draws only them."""
    while True:
        thing = Thing(pick(rng, SHAPES), pick(rng, COLOURS))
        if held_pair(thing.colour, thing.shape) == (pairs == "held"):
            return thing


def sample_kinds(
    rng: np.random.Generator, number: int, held: bool, adversarial: bool, twins: bool
) -> list[Thing] | None:
    """Things without places, no two of them alike. The first is the most interesting. None: again.

    held: the first has a held-out pair. adversarial: the second shares its colour, the third its
    shape. twins: the second is like the first.
    """
    things = [sample_kind(rng, "held" if held else "seen")]
    if twins:
        things.append(dataclasses.replace(things[0]))
    if adversarial:
        first = things[0]
        things += [
            Thing(pick(rng, SHAPES), first.colour),
            Thing(first.shape, pick(rng, COLOURS)),
        ]
    while len(things) < number:
        things.append(sample_kind(rng, "seen"))
    kinds = {(thing.colour, thing.shape) for thing in things}
    others = things[1:]
    # Only the first may have a held-out pair: training never sees such a thing at all.
    unseen = any(held_pair(thing.colour, thing.shape) for thing in others if not twins)
    alike = len(kinds) != len(things) - twins
    return None if unseen or alike else things[:number]


def sample_zones(rng: np.random.Generator) -> list[Thing]:
    """Two zones that differ in kind or colour, without places."""
    while True:
        zones = [Thing(pick(rng, ZONES), pick(rng, COLOURS), z=0.0) for _ in range(2)]
        if zones[0] != zones[1]:
            return zones


def place(rng: np.random.Generator, things: list[Thing]) -> bool:
    """Give everything a place with room around it. False: no room after many tries."""
    placed: list[Thing] = []
    for thing in things:
        for _ in range(TRIES):
            x, y = (float(value) for value in rng.uniform(-REACH, REACH, 2))
            if all(other.away(x, y) > distance_apart(thing, other) for other in placed):
                thing.x, thing.y = x, y
                placed.append(thing)
                break
        else:
            return False
    return True


def distance_apart(first: Thing, second: Thing) -> float:
    if first.is_zone() and second.is_zone():
        return 2.2 * ZONE_RADIUS
    return APART


def sample_layout(
    rng: np.random.Generator,
    *,
    number: int | None = None,
    held: bool = False,
    adversarial: bool | None = None,
    twins: bool = False,
) -> Layout:
    """A layout.

    number: of things; None draws 3 to 5. held: the first thing has a held-out pair. adversarial:
    two distractors share a word with the first thing; None: in half of the layouts. twins: the
    first two things are alike, so that a choice is free.
    """
    while True:
        many = int(rng.integers(3, 6)) if number is None else number
        hard = bool(rng.random() < 0.5) if adversarial is None else adversarial
        kinds = sample_kinds(rng, many, held, hard and not twins, twins)
        if kinds is None:
            continue
        zones = sample_zones(rng)
        if not place(rng, zones + kinds):
            continue
        # A policy must not learn that the first thing is the one that orders are about.
        order = rng.permutation(len(kinds))
        return Layout([kinds[index] for index in order], zones)
