"""Scenes of coloured shapes: what a scene is, what is held out, and how scenes are sampled.

A scene is one to five shapes on a background. Its objects are known, so a caption about it is true
or false (judge.py). drawing.py draws a scene; language.py writes captions of it.
Everything is a function of the generator passed in: the same seed gives the same scene.
Positions and radii are shares of the image's side; x grows to the right, y grows downwards.

    level 1   one object
    level 2   two objects with a clear relation: left of, right of, above, below, inside
    level 3   three objects (more in the split `long`), often in groups: three small red circles

A tidy scene leaves out what no caption says: its objects stand upright on a grid, each size has one
radius, each colour one shade, and there are few backgrounds. If the grid divides the image's side,
the same object then has the same pixels at every place. Two or three objects stand apart, so that
few tokens of a picture see two of them.
"""

import dataclasses
import math
from dataclasses import dataclass, field

import numpy as np

SHAPES = ("circle", "square", "triangle", "rectangle", "star", "cross", "semicircle", "heart")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black", "white")
SIZES = ("small", "medium", "large")
FILLS = ("solid", "outlined", "striped", "dotted")
PATTERNS = ("striped", "dotted")  # not on small objects, where three pixels are no pattern
RELATIONS = ("left of", "right of", "above", "below", "inside")
CLASSES = {"size": SIZES, "fill": FILLS, "colour": COLOURS, "shape": SHAPES}
ATTRIBUTES = tuple(CLASSES)

INSIDE = 0.15  # share of the draws of two objects; many find no room, so an eighth of the scenes
CLOSEST = 0.97  # circumscribed circles may overlap by 3%, because few shapes fill their circle
TRIES = 60  # places to try before a draw is given up

RADIUS = {  # of the circumscribed circle. The gaps keep the three sizes apart
    "small": (0.070, 0.085),
    "medium": (0.120, 0.138),
    "large": (0.195, 0.225),
}
TIDY_PLACES = 12  # of a tidy scene, per side: a place per token of a picture (net/picture_codes.py)
TIDY_GAP = 2  # places at least, between two objects of a tidy scene of two or three
INRADIUS = {  # of the shapes that can hold another, as a share of their radius
    "circle": 1.0,
    "square": 0.70,
    "rectangle": 0.45,
    "triangle": 0.50,
    "heart": 0.55,
}


@dataclass
class Object:
    """One shape. x, y: its centre; radius: of its circumscribed circle; angle: degrees."""

    shape: str
    colour: str
    size: str
    fill: str
    x: float = 0.5
    y: float = 0.5
    radius: float = 0.1
    angle: float = 0.0

    def kind(self) -> tuple[str, str, str, str]:
        """Its attributes, in the order of ATTRIBUTES."""
        return self.size, self.fill, self.colour, self.shape


@dataclass
class Scene:
    """Objects in drawing order, the noise level, and the seed of everything random in the image.

    tidy: one shade per colour, and a background of a few (drawing.py).
    """

    objects: list[Object] = field(default_factory=list)
    noise: int = 0
    seed: int = 0
    tidy: bool = False

    def to_dict(self) -> dict:
        values = dataclasses.asdict(self)
        if not self.tidy:  # the files of other scenes stay as they were
            del values["tidy"]
        return values


def scene_from_dict(values: dict) -> Scene:
    """The scene that `Scene.to_dict` wrote."""
    objects = [Object(**attributes) for attributes in values["objects"]]
    return Scene(objects, values["noise"], values["seed"], values.get("tidy", False))


# --- where objects are -------------------------------------------------------------------------


def relation(first: Object, second: Object) -> str | None:
    """The clear relation of `first` to `second`, or None.

    "inside", or the direction in which `first` is clearly farther away. A slanting direction is
    not clear: captions are written from this function, so they say only what nobody disputes.
    """
    right, down = first.x - second.x, first.y - second.y
    distance = math.hypot(right, down)
    if distance < second.radius - 0.5 * first.radius and first.radius < second.radius:
        return "inside"
    longer = max(abs(right), abs(down))
    shorter = min(abs(right), abs(down))
    if longer < 0.12 or longer < 1.4 * shorter:
        return None
    if abs(right) > abs(down):
        return "right of" if right > 0 else "left of"
    return "below" if down > 0 else "above"


def at_place(thing: Object, place: str, margin: float = 0.05) -> bool:
    """Whether the object is at a place of language.PLACES.

    margin > 0 is generous (for judging); margin < 0 is strict (for writing).
    """
    if place == "centre":
        return max(abs(thing.x - 0.5), abs(thing.y - 0.5)) < 0.13 + margin
    distance = {"left": thing.x, "right": 1 - thing.x, "top": thing.y, "bottom": 1 - thing.y}
    return all(distance[side] < 0.40 + margin for side in place.split())


# --- what is held out --------------------------------------------------------------------------
# Latin squares: training never sees a fifth of the combinations, but sees every colour, shape,
# relation and number in other combinations.


def held_pair(colour: str, shape: str) -> bool:
    """Whether this pair of colour and shape is held out."""
    return (COLOURS.index(colour) + 2 * SHAPES.index(shape)) % 5 == 0


def held_relation(first: str, relation: str, second: str) -> bool:
    """Whether this relation of two shapes is held out, from either object's point of view."""
    if relation in ("right of", "below"):
        relation = {"right of": "left of", "below": "above"}[relation]
        first, second = second, first
    number = SHAPES.index(first) + 2 * SHAPES.index(second) + RELATIONS.index(relation)
    return number % 5 == 0


def held_count(number: int, shape: str) -> bool:
    """Whether this number of one shape is held out; only groups of two or more can be."""
    return number >= 2 and (2 * number + SHAPES.index(shape)) % 5 == 0


# --- sampling ----------------------------------------------------------------------------------


def pick(rng: np.random.Generator, values):
    """One of the values, each equally likely."""
    return values[int(rng.integers(len(values)))]


def draw_radius(rng: np.random.Generator, size: str) -> float:
    return float(rng.uniform(*RADIUS[size]))


def of_others(pairs: str) -> str:
    """The pairs of the objects behind the first group: only the first is held out."""
    return "any" if pairs == "any" else "seen"


def sample_kind(rng: np.random.Generator, pairs: str) -> Object:
    """An object without a place.

    pairs: "seen" avoids the held-out pairs of colour and shape, "held" draws only them, "any" draws
    all pairs alike.
    """
    while True:
        thing = Object(
            shape=pick(rng, SHAPES),
            colour=pick(rng, COLOURS),
            size=pick(rng, SIZES),
            fill=pick(rng, FILLS),
            angle=float(rng.uniform(0, 360)),
        )
        if thing.size == "small" and thing.fill in PATTERNS:
            thing.fill = "solid" if thing.fill == "striped" else "outlined"
        if pairs == "any" or held_pair(thing.colour, thing.shape) == (pairs == "held"):
            thing.radius = draw_radius(rng, thing.size)
            return thing


def find_place(rng: np.random.Generator, thing: Object, others: list[Object]) -> bool:
    """Move `thing` to a place in the image where it hardly covers others. False after 60 tries."""
    margin = thing.radius + 0.01
    for _ in range(TRIES):
        thing.x, thing.y = (float(value) for value in rng.uniform(margin, 1 - margin, 2))
        if all(are_apart(thing, other) for other in others):
            return True
    return False


def are_apart(first: Object, second: Object, gap: float = 0.0) -> bool:
    """Whether two objects hardly overlap, and their circumscribed circles are `gap` apart."""
    distance = math.hypot(first.x - second.x, first.y - second.y)
    if gap:
        return distance >= first.radius + second.radius + gap
    return distance > CLOSEST * (first.radius + second.radius)


def sample_one(rng: np.random.Generator, pairs: str) -> list[Object]:
    thing = sample_kind(rng, pairs)
    find_place(rng, thing, [])
    return [thing]


def sample_two(
    rng: np.random.Generator, pairs: str, relations: str, inside: float = INSIDE
) -> list[Object] | None:
    """Two objects that differ in colour and shape, with a clear relation. None: draw again.

    inside: share of the draws that put the first object into the second.
    """
    first, second = sample_kind(rng, pairs), sample_kind(rng, of_others(pairs))
    # Equal colours could not be swapped, and a caption could mean either object.
    if first.colour == second.colour or first.shape == second.shape:
        return None
    if rng.random() < inside:
        placed = place_inside(rng, first, second)
    else:
        placed = find_place(rng, second, []) and find_place(rng, first, [second])
    if not placed:
        return None
    word = relation(first, second)
    if word is None or held_relation(first.shape, word, second.shape) != (relations == "held"):
        return None
    return [second, first]  # the second lies behind


def place_inside(rng: np.random.Generator, inner: Object, outer: Object) -> bool:
    """Make `inner` small and `outer` large and put it there. False: the shape has no room."""
    outer.size, inner.size = "large", "small"
    if inner.fill in PATTERNS:
        inner.fill = "solid"
    outer.radius = draw_radius(rng, outer.size)
    inner.radius = draw_radius(rng, inner.size)
    room = INRADIUS.get(outer.shape, 0.0) * outer.radius - inner.radius * 1.05
    if room < 0:
        return False
    find_place(rng, outer, [])
    shift = rng.uniform(-0.5, 0.5, 2) * room
    inner.x, inner.y = float(outer.x + shift[0]), float(outer.y + shift[1])
    return True


def sample_groups(rng: np.random.Generator, number: int, counts: str) -> list[int]:
    """How many objects each group has: 1 to 3, `number` in all. "held" starts with two or more."""
    groups: list[int] = []
    while number:
        least = 2 if counts == "held" and not groups else 1
        groups.append(int(rng.integers(least, min(number, 3) + 1)))
        number -= groups[-1]
    return groups


def sample_many(
    rng: np.random.Generator, pairs: str, counts: str, number: int
) -> list[Object] | None:
    """`number` objects in groups that are alike. None: draw again.

    No two groups share colour and shape.
    """
    objects: list[Object] = []
    kinds: set[tuple[str, str]] = set()
    for count in sample_groups(rng, number, counts):
        like = sample_kind(rng, of_others(pairs) if objects else pairs)
        too_large = like.size == "large" and number > 3  # four large objects find no room
        if (like.colour, like.shape) in kinds or too_large:
            return None
        kinds.add((like.colour, like.shape))
        for _ in range(count):
            angle = float(rng.uniform(0, 360))
            thing = dataclasses.replace(like, angle=angle, radius=draw_radius(rng, like.size))
            if not find_place(rng, thing, objects):
                return None
            objects.append(thing)
    shapes = [thing.shape for thing in objects]
    held = any(held_count(shapes.count(shape), shape) for shape in shapes)
    return objects if held == (counts == "held") else None


def are_clear(objects: list[Object], gap: float = 0.0) -> bool:
    """Whether all objects are in sight: inside of the image, and apart or one inside the other.

    gap: at least, between the circumscribed circles of two objects that stand side by side.
    """
    for number, thing in enumerate(objects):
        margin = thing.radius + 0.01
        if not (margin <= thing.x <= 1 - margin and margin <= thing.y <= 1 - margin):
            return False
        for other in objects[:number]:
            holds = INRADIUS.get(other.shape, 0.0) * other.radius >= thing.radius * 1.05
            within = relation(thing, other) == "inside" and holds
            if not (within or are_apart(thing, other, gap)):
                return False
    return True


def tidied(objects: list[Object]) -> list[Object] | None:
    """The objects upright on a grid, each size with its mean radius.

    None if an object is no longer in sight or too close to another, or if the relation of two
    objects is another: the held relations must stay held. An object inside another goes to its
    centre.
    """
    tidy: list[Object] = []
    for thing in objects:
        x, y = (round(value * TIDY_PLACES) / TIDY_PLACES for value in (thing.x, thing.y))
        if tidy and len(objects) == 2 and relation(thing, objects[0]) == "inside":
            x, y = tidy[0].x, tidy[0].y
        radius = float(np.mean(RADIUS[thing.size]))
        tidy.append(dataclasses.replace(thing, x=x, y=y, radius=radius, angle=0.0))
    # More objects would seldom find room.
    if not are_clear(tidy, TIDY_GAP / TIDY_PLACES if len(tidy) <= 3 else 0.0):
        return None
    if len(tidy) == 2 and relation(tidy[1], tidy[0]) != relation(objects[1], objects[0]):
        return None
    return tidy


def sample_scene(
    rng: np.random.Generator,
    level: int,
    *,
    noise: int = 0,
    pairs: str = "seen",
    relations: str = "seen",
    counts: str = "seen",
    number: int = 3,
    inside: float = INSIDE,
    tidy: bool = False,
) -> Scene:
    """A scene of this level and noise. tidy: as in `tidied`.

    pairs, relations, counts: "seen" as in training, or "held" for the test splits. The first group
    of a "held" scene has the held-out property; the rest is ordinary. pairs may be "any": all pairs
    alike, in all groups.
    inside: as in `sample_two`, for level 2. number: objects at level 3.
    """
    while True:
        if level == 1:
            objects: list[Object] | None = sample_one(rng, pairs)
        elif level == 2:
            objects = sample_two(rng, pairs, relations, inside)
        else:
            objects = sample_many(rng, pairs, counts, number)
        if objects is not None and tidy:
            objects = tidied(objects)
        if objects is not None:
            return Scene(objects, noise, seed=int(rng.integers(2**31)), tidy=tidy)


def swapped(scene: Scene) -> Scene:
    """The scene of two objects with their colours exchanged.

    Its captions use the same words in another order, so a model that ignores order fails on it.
    """
    back, front = scene.objects
    objects = [
        dataclasses.replace(back, colour=front.colour),
        dataclasses.replace(front, colour=back.colour),
    ]
    return dataclasses.replace(scene, objects=objects)
