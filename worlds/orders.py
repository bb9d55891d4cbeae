"""Orders: what a robot is told to do with the things on a table.

An order has a verb, the thing that it moves, and mostly a word and another thing. `write` says it
in one of many wordings, `read` understands any of them, `goal` says where the thing must go, and
`possible` lists what can be ordered at a table. deeds.py judges whether it was done.

    pick    lift the thing
    put     on a plate or in a tray; left of, right of, in front of, behind or next to a thing
    push    to a side of the table, without lifting
    stack   on top of another thing
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np

from worlds.layouts import (
    FREE,
    HALF_HEIGHT,
    REACH,
    SHAPES,
    SIDE,
    ZONES,
    Layout,
    Thing,
    as_object,
)
from worlds.reader import Noun
from worlds.scenes import COLOURS, Object, at_place, held_relation, pick, relation

VERBS = ("pick", "put", "push", "stack")
# Our word for a relation, and the word of scenes.py, whose y grows towards the viewer.
RELATIONS = {
    "left of": "left of",
    "right of": "right of",
    "in front of": "below",
    "behind": "above",
}
NEXT_TO = "next to"  # any of the four: a free choice
DIRECTION = {"left of": (-1, 0), "right of": (1, 0), "in front of": (0, -1), "behind": (0, 1)}
SIDES = {"left": (-1, 0), "right": (1, 0), "front": (0, -1), "back": (0, 1)}
SIDE_OF = {"left": "left", "right": "right", "front": "bottom", "back": "top"}
BESIDE = 0.078  # metres between two things that a relation puts next to each other
PUSHED = 0.31  # share of the table's side between its edge and a thing that was pushed there
PUSH_FROM = 0.052  # metres behind a thing, where a push begins


@dataclass(frozen=True)
class Order:
    """An order. word: a relation, "on" or "in" of a zone, or a side of the table."""

    verb: str
    noun: Noun
    word: str = ""
    other: Noun = Noun()


# --- wordings ----------------------------------------------------------------------------------
# {x}: the thing. {y}: the other thing. {w}: the words of the relation. The last three wordings of
# each verb are held out: training never sees them.

WORDINGS = {
    "pick": (
        "pick up {x}",
        "pick {x} up",
        "lift {x}",
        "lift {x} up",
        "take {x}",
        "grab {x}",
        "grasp {x}",
        "get {x}",
        "please pick up {x}",
        "now take {x}",
        "can you lift {x}",
        "take hold of {x}",
        "could you grab {x}",
        "raise {x}",
    ),
    "put": (
        "put {x} {w} {y}",
        "place {x} {w} {y}",
        "move {x} {w} {y}",
        "set {x} {w} {y}",
        "bring {x} {w} {y}",
        "lay {x} {w} {y}",
        "please put {x} {w} {y}",
        "now move {x} {w} {y}",
        "can you place {x} {w} {y}",
        "take {x} and put it {w} {y}",
        "pick up {x} and place it {w} {y}",
        "set {x} down {w} {y}",
        "could you move {x} {w} {y}",
        "grab {x} and lay it {w} {y}",
    ),
    "push": (
        "push {x} {w}",
        "shove {x} {w}",
        "slide {x} {w}",
        "nudge {x} {w}",
        "push {x} over {w}",
        "slide {x} over {w}",
        "please push {x} {w}",
        "now slide {x} {w}",
        "can you push {x} {w}",
        "shove {x} over {w}",
        "could you slide {x} {w}",
        "give {x} a push {w}",
        "drag {x} {w}",
    ),
    "stack": (
        "stack {x} on top of {y}",
        "stack {x} on {y}",
        "put {x} on top of {y}",
        "place {x} on top of {y}",
        "set {x} on top of {y}",
        "please stack {x} on {y}",
        "now put {x} on top of {y}",
        "can you stack {x} on {y}",
        "take {x} and stack it on {y}",
        "pick up {x} and put it on top of {y}",
        "lay {x} on top of {y}",
        "could you stack {x} on top of {y}",
        "move {x} onto {y}",
    ),
}
HELD_WORDINGS = 3
WORDS_OF = {
    "on": ("on", "onto"),
    "in": ("in", "into"),
    "left of": ("to the left of", "left of"),
    "right of": ("to the right of", "right of"),
    "in front of": ("in front of", "before"),
    "behind": ("behind", "in back of"),
    "next to": ("next to", "beside"),
    "left": ("to the left", "to the left side"),
    "right": ("to the right", "to the right side"),
    "front": ("to the front", "towards you"),
    "back": ("to the back", "away from you"),
}
THING = "thing"  # a noun without a shape


def say(noun: Noun) -> str:
    """ "the red star", "the star" or "the red thing"."""
    return " ".join(word for word in ("the", noun.colour, noun.shape or THING) if word)


def wordings(verb: str, held: bool) -> tuple[str, ...]:
    known = WORDINGS[verb][:-HELD_WORDINGS]
    return WORDINGS[verb][-HELD_WORDINGS:] if held else known


def write(order: Order, rng: np.random.Generator, held: bool = False) -> str:
    """The order in words. held: in a wording that training never sees."""
    wording = pick(rng, wordings(order.verb, held))
    words = pick(rng, WORDS_OF[order.word]) if order.word else ""
    return wording.format(x=say(order.noun), y=say(order.other), w=words)


class NotAnOrder(ValueError):
    """The words are no order that this table understands."""


def read_noun(words: list[str]) -> Noun | None:
    """The noun of "the red star"; None if the words are no noun phrase."""
    if len(words) < 2 or words[0] not in ("the", "a", "an"):
        return None
    *colours, shape = words[1:]
    if shape not in (*SHAPES, *ZONES, THING) or len(colours) > 1:
        return None
    if colours and colours[0] not in COLOURS:
        return None
    return Noun(colour="".join(colours), shape="" if shape == THING else shape)


def read(text: str) -> Order:
    """The order that a text says, in any wording. Raises NotAnOrder."""
    words = text.lower().replace(",", " ").replace(".", " ").split()
    for verb in VERBS:
        for wording in WORDINGS[verb]:
            order = match(wording.split(), words, verb)
            if order is not None and sensible(order):
                return order
    raise NotAnOrder(text)


def match(wording: list[str], words: list[str], verb: str) -> Order | None:
    """The order, if the words are of this wording: nouns are two or three words long."""
    known = sorted(itertools.chain(*WORDS_OF.values()), key=len, reverse=True)
    meaning = {phrase: name for name, phrases in WORDS_OF.items() for phrase in phrases}
    found: dict[str, Noun | str] = {}
    rest = list(words)
    for piece in wording:
        if piece in ("{x}", "{y}"):
            noun = read_noun(rest[:3])
            length = 3 if noun else 2
            noun = noun or read_noun(rest[:2])
            if noun is None:
                return None
            found[piece] = noun
            rest = rest[length:]
        elif piece == "{w}":
            phrase = next(
                (text for text in known if rest[: text.count(" ") + 1] == text.split()), None
            )
            if phrase is None:
                return None
            found[piece] = meaning[phrase]
            rest = rest[phrase.count(" ") + 1 :]
        elif rest[:1] == [piece]:
            rest = rest[1:]
        else:
            return None
    if rest:
        return None
    return Order(verb, found["{x}"], found.get("{w}", ""), found.get("{y}", Noun()))


def sensible(order: Order) -> bool:
    """Whether word and nouns suit the verb: nothing is put "on" a thing, only stacked."""
    if order.noun.shape in ZONES:
        return False
    zone = order.other.shape in ZONES
    if order.verb == "put":
        return (order.word in ("on", "in")) == zone and order.word not in SIDES
    if order.verb == "push":
        return order.word in SIDES
    return not zone


# --- where things go ---------------------------------------------------------------------------


def goal(order: Order, thing: Thing, other: Thing | None) -> tuple[float, float]:
    """Where the thing's centre must go, in metres; for `pick` where it is."""
    if order.verb == "push":
        x, y = SIDES[order.word]
        edge = SIDE * (0.5 - PUSHED)
        return (x * edge if x else thing.x, y * edge if y else thing.y)
    if order.verb == "pick" or other is None:
        return thing.x, thing.y
    if order.word in DIRECTION:
        x, y = DIRECTION[order.word]
        return other.x + x * BESIDE, other.y + y * BESIDE
    return other.x, other.y


def is_true(order: Order, thing: Thing, other: Thing | None) -> bool:
    """Whether the claim of a `put` or `push` holds, seen from above, by the grammar of scenes."""
    it = as_object(thing)
    if order.verb == "push":
        return at_place(it, SIDE_OF[order.word], margin=0.0)
    assert other is not None
    return holds(it, order.word, as_object(other))


def holds(it: Object, word: str, other: Object) -> bool:
    if word in ("on", "in"):
        return relation(it, other) == "inside"
    # Two things of a size: neither is inside the other, however close they are.
    found = relation(it, other)
    if word == NEXT_TO:
        near = math.hypot(it.x - other.x, it.y - other.y) < 0.25
        return near and found in RELATIONS.values()
    return found == RELATIONS[word]


# --- what can be ordered -----------------------------------------------------------------------


def reachable(x: float, y: float) -> bool:
    return max(abs(x), abs(y)) <= REACH


def is_free(layout: Layout, x: float, y: float, but: list[Thing]) -> bool:
    """Whether no thing but the named ones is near (x, y)."""
    others = [thing for thing in layout.things if all(thing is not each for each in but)]
    return all(thing.away(x, y) > FREE for thing in others)


def clear_way(layout: Layout, order: Order, thing: Thing) -> bool:
    """Whether a push from behind the thing to its goal meets nothing."""
    x, y = SIDES[order.word]
    end = goal(order, thing, None)
    start = (thing.x - x * PUSH_FROM, thing.y - y * PUSH_FROM)
    if not reachable(*start) or not reachable(*end):
        return False
    for share in np.linspace(0, 1, 9):
        point = [(1 - share) * a + share * b for a, b in zip(start, end, strict=True)]
        if not is_free(layout, *point, but=[thing]):
            return False
    return True


def can_be_done(layout: Layout, order: Order, thing: Thing, other: Thing | None) -> bool:
    """Whether the order is not done yet, and the expert has the room to do it."""
    if order.verb == "pick":
        return True
    if order.verb == "stack":
        return True
    if is_true(order, thing, other):
        return False
    if order.verb == "push":
        # From clearly outside the side, so that the push is a movement that people see.
        return not at_place(as_object(thing), SIDE_OF[order.word], 0.1) and clear_way(
            layout, order, thing
        )
    x, y = goal(order, thing, other)
    assert other is not None
    if order.word == NEXT_TO:
        return all(
            side_is_free(layout, Order("put", order.noun, word, order.other), thing, other)
            for word in RELATIONS
        )
    return reachable(x, y) and is_free(layout, x, y, but=[thing, other])


def side_is_free(layout: Layout, order: Order, thing: Thing, other: Thing) -> bool:
    x, y = goal(order, thing, other)
    return reachable(x, y) and is_free(layout, x, y, but=[thing, other])


def short_nouns(layout: Layout, thing: Thing) -> list[Noun]:
    """The nouns that name this thing alone: by both words, by its shape, by its colour."""
    nouns = [thing.noun(), Noun(shape=thing.shape)]
    if not thing.is_zone():
        nouns.append(Noun(colour=thing.colour))
    return [noun for noun in nouns if layout.fitting(noun) == [thing]]


def possible(layout: Layout, verb: str) -> list[tuple[Order, Thing, Thing | None]]:
    """All orders with this verb that can be carried out, each with its things. Full nouns."""
    found = []
    for thing in layout.things:
        noun = thing.noun()
        candidates: list[tuple[Order, Thing | None]] = []
        others = [other for other in layout.things if other is not thing]
        if verb == "pick":
            candidates = [(Order("pick", noun), None)]
        elif verb == "push":
            candidates = [(Order("push", noun, word), None) for word in SIDES]
        elif verb == "stack":
            candidates = [(Order("stack", noun, "", other.noun()), other) for other in others]
        else:
            for zone in layout.zones:
                word = "on" if zone.shape == "plate" else "in"
                candidates.append((Order("put", noun, word, zone.noun()), zone))
            for other in others:
                candidates += [
                    (Order("put", noun, word, other.noun()), other) for word in RELATIONS
                ]
        for order, other in candidates:
            if can_be_done(layout, order, thing, other):
                found.append((order, thing, other))
    return found


def is_held_relation(order: Order) -> bool:
    """Whether training never sees this relation of these two shapes."""
    if order.word not in RELATIONS:
        return False
    return held_relation(order.noun.shape, RELATIONS[order.word], order.other.shape)


def height_of(order: Order, other: Thing | None) -> float:
    """The height of the thing's centre when the order is done, in metres."""
    if order.verb == "stack" and other is not None:
        return other.z + 2 * HALF_HEIGHT
    return HALF_HEIGHT
