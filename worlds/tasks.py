"""Tasks: a layout, an order, and its words, drawn for a split.

    val            as in training, other seeds
    held_pair      the thing has a pair of colour and shape that training never shows or names
    held_relation  a relation of two shapes that training never orders
    held_wording   a wording that training never says
    adversarial    one distractor shares the thing's colour, another its shape
    crowd          six things; training has three to five
    camera         another camera and another light (table.py)

Three more tasks leave a choice free:

    twins          two things fit the words
    next_to        four sides are right
    around         either end of a wall that stands between the thing and its zone
"""

from dataclasses import dataclass

import numpy as np

from base.errors import UserError
from worlds import orders, wall
from worlds.layouts import SPLITS, ZONES, Layout, Thing, sample_layout
from worlds.orders import NEXT_TO, Order
from worlds.reader import Noun
from worlds.scenes import held_pair, pick

FREE_CHOICES = ("twins", "next_to", "around")
ONE_VERB = {"held_relation": "put", "twins": "pick", "next_to": "put", "around": "put"}
SHORT = 0.4  # share of the training's nouns that name one attribute alone
VERB_WEIGHTS = {"pick": 0.25, "put": 0.4, "push": 0.15, "stack": 0.2}
TABLES = 2000  # tables to try for an order that somebody typed
TO_ZONE = 0.5  # share of the puts that go to a zone
AROUND = "go around the wall and "  # the words before an order at a table with a wall


@dataclass
class Task:
    """What is to be done. thing, other: of the layout; other is None for `pick` and `push`.

    wall: whether a wall stands in the middle of the table (worlds/wall.py).
    """

    layout: Layout
    order: Order
    text: str
    thing: Thing
    other: Thing | None
    wall: bool = False


def candidates(layout: Layout, verb: str, split: str, rng: np.random.Generator) -> list:
    """The orders of a verb that suit a split."""
    found = orders.possible(layout, verb)
    if split == "held_pair":
        found = [each for each in found if held_pair(each[0].noun.colour, each[0].noun.shape)]
    wanted = split == "held_relation"
    found = [each for each in found if orders.is_held_relation(each[0]) == wanted]
    if verb == "put" and not wanted:
        zone = bool(rng.random() < TO_ZONE)
        found = [each for each in found if (each[0].word in ("on", "in")) == zone]
    return found


def shorten(rng: np.random.Generator, layout: Layout, thing: Thing) -> Noun:
    """The noun of both words, or with probability SHORT of one word, where it is enough."""
    nouns = orders.short_nouns(layout, thing)
    if not nouns:  # a twin: no noun names it alone
        return thing.noun()
    if len(nouns) == 1 or rng.random() >= SHORT:
        return nouns[0]
    return pick(rng, nouns[1:])


def sample_verb(rng: np.random.Generator) -> str:
    names = list(VERB_WEIGHTS)
    return str(rng.choice(names, p=list(VERB_WEIGHTS.values())))


def split_layout(rng: np.random.Generator, split: str) -> Layout:
    adversarial = True if split == "adversarial" else None
    number = 6 if split == "crowd" else None
    return sample_layout(
        rng,
        number=number,
        held=split == "held_pair",
        adversarial=adversarial,
        twins=split == "twins",
    )


def sample_task(rng: np.random.Generator, split: str = "train", verb: str | None = None) -> Task:
    """A task of a split. verb: None draws a verb.

    Training says 40% of its nouns with one word ("the star", "the red thing"): words that are
    taught one at a time are understood in new pairs. The splits say both words. Raises UserError
    for an unknown split.
    """
    if split not in ("train", *SPLITS, *FREE_CHOICES):
        raise UserError(
            f"the split {split!r}",
            " or ".join(("train", *SPLITS, *FREE_CHOICES)),
            "choose one of them",
        )
    wanted = verb or ONE_VERB.get(split)
    while True:
        # The verb is drawn once: a verb that rarely fits must not become rare.
        name = wanted or sample_verb(rng)
        for _ in range(100):
            layout = split_layout(rng, split)
            task = task_at(rng, layout, name, split)
            if task is not None:
                return task


def task_at(rng: np.random.Generator, layout: Layout, verb: str, split: str) -> Task | None:
    """A task at a layout; None if the layout has no room for it."""
    if split == "twins":
        return twins_task(rng, layout)
    if split == "next_to":
        return next_to_task(rng, layout)
    if split == "around":
        return around_task(rng, layout)
    found = candidates(layout, verb, split, rng)
    if split == "adversarial":
        found = [each for each in found if has_distractors(layout, each[1])]
    if not found:
        return None
    order, thing, other = pick(rng, found)
    if split == "train":
        noun = shorten(rng, layout, thing)
        other_noun = shorten(rng, layout, other) if other else Noun()
        order = Order(order.verb, noun, order.word, other_noun)
    return Task(layout, order, orders.write(order, rng, split == "held_wording"), thing, other)


def has_distractors(layout: Layout, thing: Thing) -> bool:
    others = [each for each in layout.things if each is not thing]
    colour = any(each.colour == thing.colour for each in others)
    return colour and any(each.shape == thing.shape for each in others)


def twins_task(rng: np.random.Generator, layout: Layout) -> Task:
    """Pick one of two things that are alike. `thing` is drawn: the expert takes this twin."""
    twins = [each for each in layout.things if len(layout.fitting(each.noun())) == 2]
    thing = pick(rng, twins)
    order = Order("pick", thing.noun())
    return Task(layout, order, orders.write(order, rng), thing, None)


def next_to_task(rng: np.random.Generator, layout: Layout) -> Task | None:
    """Put a thing next to another: all four sides are free."""
    found = []
    for thing in layout.things:
        for other in layout.things:
            order = Order("put", thing.noun(), NEXT_TO, other.noun())
            if other is not thing and orders.can_be_done(layout, order, thing, other):
                found.append((order, thing, other))
    if not found:
        return None
    order, thing, other = pick(rng, found)
    return Task(layout, order, orders.write(order, rng), thing, other)


def around_task(rng: np.random.Generator, layout: Layout) -> Task | None:
    """Put a thing on a zone beyond a wall: both ways around the wall are free."""
    if not wall.has_room(layout):
        return None
    found = []
    for order, thing, other in orders.possible(layout, "put"):
        if other is not None and other.is_zone() and wall.between(thing, other):
            found.append((order, thing, other))
    if not found:
        return None
    order, thing, other = pick(rng, found)
    return Task(layout, order, AROUND + orders.write(order, rng), thing, other, wall=True)


def swapped(rng: np.random.Generator, task: Task) -> Task | None:
    """Another order with the same verb at the same layout, about another thing. None: there is
    none."""
    found = [
        each
        for each in orders.possible(task.layout, task.order.verb)
        if each[1] is not task.thing and not orders.is_held_relation(each[0])
    ]
    if not found:
        return None
    order, thing, other = pick(rng, found)
    return Task(task.layout, order, orders.write(order, rng), thing, other)


# --- an order that somebody typed --------------------------------------------------------------


def rename(thing: Thing, noun: Noun) -> None:
    """Give a thing the words of a noun; what the noun leaves open stays."""
    thing.shape = noun.shape or thing.shape
    thing.colour = noun.colour or thing.colour


def task_for(rng: np.random.Generator, text: str) -> Task:
    """A task whose order is `text`, at a random table that has what the text names.

    Raises UserError if the text is no order, or if no table was found where it can be done.
    """
    beyond = text.lower().startswith(AROUND)
    try:
        order = orders.read(text.lower().removeprefix(AROUND))
    except orders.NotAnOrder:
        raise UserError(
            f"the order {text!r}",
            'an order such as "put the red star on the blue plate" or "pick up the heart"',
            "use the colours, shapes and verbs of docs/robot.md",
        ) from None
    for _ in range(TABLES):
        layout = sample_layout(rng, adversarial=False)
        rename(layout.things[0], order.noun)
        zone = order.other.shape in ZONES
        second = layout.zones[0] if zone else layout.things[1]
        if order.other != Noun():
            rename(second, order.other)
        thing, other = layout.things[0], second if order.other != Noun() else None
        named = layout.fitting(order.noun) == [thing]
        if other is not None:
            named = named and layout.fitting(order.other) == [other]
        if beyond:
            named = named and wall.has_room(layout) and zone and wall.between(thing, second)
        if named and orders.can_be_done(layout, order, thing, other):
            return Task(layout, order, text, thing, other, wall=beyond)
    raise UserError(
        f"no table among {TABLES:,} where {text!r} can be done",
        "two different things, of which the order moves one",
        "write another order",
    )
