"""Which programs of moving scenes are drawn, and which are held out of training.

A program is a function of (seed, split, number). Every event of a program can be seen: moves are
long, no object covers another but for what is passed, and an object is there while it acts.
"""

import numpy as np

from worlds import scenes
from worlds.motion import (
    FRAMES,
    LAST,
    OPPOSITE,
    PARTS,
    VERBS,
    Event,
    Program,
    object_at,
    order,
    reverse,
    size_of,
    swap_order,
)
from worlds.scenes import SHAPES, SIZES, Object, are_apart, pick

MOST_OBJECTS = 3
STEPS = {"x": (2, 5), "y": (2, 5), "radius": (2, 4), "there": (1, 1)}  # how long an event takes
DISTANCE = (0.24, 0.55)  # of a move, as a share of the image's side
TRIES = 60  # draws of places and times for the same verbs, before other verbs are drawn

HELD = ("held_verb", "held_order", "held_count", "swap_order", "swap_time")
# A split's number is part of its random seed, so the order must never change.
SPLITS = (*HELD, "train", "val")


# --- what is held out --------------------------------------------------------------------------
# Both rules say the same of a program and of its reversal: a reversed clip holds nothing new.

CLASS = {"left": 0, "up": 1, "appears": 2, "grows": 3, "passes": 4}
# A verb's opposite has the opposite number, modulo 5.
SIGN = {"left": 1, "up": 2, "appears": 1, "grows": 2, "passes": 0}


def held_verb(verb: str, shape: str) -> bool:
    """Whether this verb of this shape is held out: one pair of opposite verbs per shape."""
    number = CLASS[verb if verb in CLASS else OPPOSITE[verb]]
    return (number + 2 * SHAPES.index(shape)) % 5 == 0


def held_order(first: str, second: str) -> bool:
    """Whether these verbs in this order are held out. In the other order they are not."""

    def number(verb: str) -> int:
        return SIGN[verb] if verb in SIGN else -SIGN[OPPOSITE[verb]]

    return (number(first) - number(second)) % 5 == 1


def has_held_verb(program: Program, events: tuple[Event, ...]) -> bool:
    """Whether one of the events has a held-out verb of its shape."""
    return any(held_verb(event.verb, program.objects[event.thing].shape) for event in events)


def has_held_order(program: Program) -> bool:
    """Whether two events stand in a held-out order."""
    for first in program.events:
        for second in program.events:
            if order(first, second) == "before" and held_order(first.verb, second.verb):
                return True
    return False


# --- sampling ----------------------------------------------------------------------------------


def sample_objects(rng: np.random.Generator, number: int) -> list[Object] | None:
    """Objects that differ in colour and in shape, each at its own place. None: draw again."""
    objects: list[Object] = []
    for _ in range(number):
        thing = scenes.sample_kind(rng, "seen")
        if not scenes.find_place(rng, thing, objects):
            return None
        objects.append(thing)
    colours = {thing.colour for thing in objects}
    shapes = {thing.shape for thing in objects}
    return objects if len(colours) == len(shapes) == number else None


def sample_event(rng: np.random.Generator, objects: list[Object], verb: str) -> Event | None:
    """An event of this verb. It may change the object's place and fill. None: draw again."""
    # What passes lies in front: it is not the first object of the list.
    lowest = 1 if verb == "passes" else 0
    if lowest == len(objects):
        return None
    thing = int(rng.integers(lowest, len(objects)))
    item = objects[thing]
    part = next((part for part, verbs in PARTS.items() if verb in verbs), "")
    other, first, last = -1, 0.0, 1.0
    if verb == "passes":
        other = int(rng.integers(thing))
        part = pick(rng, ("x", "y"))
        first, last = path_across(rng, item, objects[other], part)
    elif part == "radius":
        small, large = sorted(rng.choice(len(SIZES), 2, replace=False))
        first = scenes.draw_radius(rng, SIZES[small])
        last = scenes.draw_radius(rng, SIZES[large])
        if small == 0 and item.fill in scenes.PATTERNS:
            item.fill = "solid"
    elif part in ("x", "y"):
        first = getattr(item, part)
        last = first + float(rng.uniform(*DISTANCE))
    if verb in ("left", "up", "shrinks", "disappears"):
        first, last = last, first
    steps = int(rng.integers(STEPS[part][0], STEPS[part][1] + 1))
    # An object is there, or away, for two frames at least.
    margin = 1 if part == "there" else 0
    start = int(rng.integers(margin, LAST - steps - margin + 1))
    return Event(part, thing, start, start + steps, first, last, other)


def path_across(
    rng: np.random.Generator, item: Object, other: Object, part: str
) -> tuple[float, float]:
    """Where `item` begins and ends on its way across `other`; its other coordinate is set."""
    across = "y" if part == "x" else "x"
    # Off the middle by less than a third of the radius: the path crosses the object clearly.
    shift = float(rng.uniform(-0.3, 0.3)) * other.radius
    setattr(item, across, getattr(other, across) + shift)
    reach = 1.02 * (item.radius + other.radius) + float(rng.uniform(0.0, 0.12))
    middle = getattr(other, part)
    ends = (middle - reach, middle + reach)
    return ends if rng.random() < 0.5 else ends[::-1]


def attempt(rng: np.random.Generator, verbs: list[str], noise: int) -> Program | None:
    """A program with an event of each verb. Perhaps it cannot be seen. None: draw again."""
    fewest = 2 if "passes" in verbs else 1
    objects = sample_objects(rng, int(rng.integers(fewest, MOST_OBJECTS + 1)))
    if objects is None:
        return None
    events = []
    for verb in verbs:
        event = sample_event(rng, objects, verb)
        if event is None:
            return None
        events.append(event)
    for event in events:
        item = objects[event.thing]
        if event.part != "there":
            setattr(item, event.part, event.first)
        if event.part == "radius":
            item.size = size_of(event.first)
    return Program(tuple(objects), tuple(events), noise, int(rng.integers(2**31)))


def is_clear(program: Program) -> bool:
    """Whether every event can be seen, and no object covers another, but for what is passed."""
    for event in program.events:
        others = [item for item in program.of(event.thing) if item is not event]
        if any(hides(event, other) for other in others):
            return False
        during = range(event.start, event.end + 1)
        if event.part != "there" and not all(program.is_there(event.thing, t) for t in during):
            return False
        if event.other >= 0:
            # Another move or size would change what is covered, and when.
            others += program.of(event.other)
            if any(item.part != "there" for item in others):
                return False
            if not all(program.is_there(event.other, t) for t in during):
                return False
    return all(is_apart(program, frame) for frame in range(FRAMES))


def hides(event: Event, other: Event) -> bool:
    """Whether two events of one object cannot be told apart: one part, or two moves at once."""
    if event.part == other.part:
        return True
    if event.part in "xy" and other.part in "xy":
        return event.start < other.end and other.start < event.end
    return False


def is_apart(program: Program, frame: int) -> bool:
    """Whether all objects lie inside the image at a frame, and apart, but for what is passed."""
    seen = [object_at(program, thing, frame) for thing in range(len(program.objects))]
    there = [thing for thing in range(len(seen)) if program.is_there(thing, frame)]
    passing = {(event.thing, event.other) for event in program.events if event.other >= 0}
    for thing in there:
        item = seen[thing]
        margin = item.radius + 0.01
        if not (margin <= item.x <= 1 - margin and margin <= item.y <= 1 - margin):
            return False
        for other in there:
            free = other < thing and (thing, other) not in passing
            if free and not are_apart(item, seen[other]):
                return False
    return True


def is_wanted(program: Program, verbs: str, orders: str) -> bool:
    """Whether what a program holds out is what `sample_program` asks for."""
    first = 1 if verbs == "held" else 0
    if has_held_verb(program, program.events[:first]) != bool(first):
        return False
    if has_held_verb(program, program.events[first:]):
        return False
    return has_held_order(program) == (orders == "held")


def sample_program(
    rng: np.random.Generator,
    number: int,
    *,
    noise: int = 0,
    verbs: str = "seen",
    orders: str = "seen",
) -> Program:
    """A program of `number` events.

    verbs, orders: "seen" as in training, or "held" for the test splits. With verbs "held", the
    first event has the held-out verb; the other events are ordinary.
    """
    while True:
        # The verbs come first: else the verbs that find room easily would be most frequent.
        drawn = [pick(rng, VERBS) for _ in range(number)]
        if orders == "held" and not any(map(held_order, drawn, drawn[::-1])):
            continue
        for _ in range(TRIES):
            program = attempt(rng, drawn, noise)
            # Whether it can be seen comes last: that check takes most of the time.
            if program and is_wanted(program, verbs, orders) and is_clear(program):
                return program


def sample_pair(rng: np.random.Generator, split: str, noise: int) -> tuple[Program, Program]:
    """Two programs of the same objects: in two orders of events, or forwards and backwards."""
    while True:
        number = 2 if split == "swap_order" else int(rng.integers(1, 3))
        program = sample_program(rng, number, noise=noise)
        if number == 2 and order(*program.events) in ("while", None):
            continue
        if split == "swap_time":
            # A clip of one pass looks the same to a caption in both directions.
            if number == 2 or program.events[0].verb != "passes":
                return program, reverse(program)
            continue
        mate = swap_order(program)
        # The mate must not show an order that training never shows.
        if is_clear(mate) and not has_held_order(mate):
            return program, mate


def sample(seed: int, split: str, number: int, noise: int = 2) -> Program:
    """Program `number` of a split: a pure function of the arguments.

    noise: clips have noise 0 to this. Programs 2k and 2k + 1 of a swap split are a pair.
    """
    is_pair = split.startswith("swap")
    rng = np.random.default_rng([seed, SPLITS.index(split), number // 2 if is_pair else number])
    noise = int(rng.integers(noise + 1))
    if is_pair:
        return sample_pair(rng, split, noise)[number % 2]
    # Two thirds of the clips have two events.
    events = 1 + int(rng.integers(3) > 0)
    if split == "held_count":
        return sample_program(rng, 3, noise=noise)
    if split == "held_order":
        return sample_program(rng, 2, noise=noise, orders="held")
    if split == "held_verb":
        return sample_program(rng, events, noise=noise, verbs="held")
    return sample_program(rng, events, noise=noise)
