"""The words for scenes, and true sentences about a scene.

Every sentence that `describe` writes can be read by reader.py, and all its claims are true
(judge.py); tests hold it over random seeds. The grammar:

    caption := [opening] list | place "there is" item | "the largest is" item
             | number "shapes:" list
             | "the" noun "is" (place | relation "the" noun | "larger than the" noun)
    list    := item {"," item} ["and" item] ["but no" nouns | "and nothing else"]
    item    := ("a" | number) noun [place] [relation item | "with" item relation-to-it]
    noun    := [size] [fill] [colour] shape
"""

import numpy as np

from worlds.scenes import SHAPES, Object, Scene, at_place, pick, relation

# --- words -------------------------------------------------------------------------------------

SYNONYMS = {
    "small": ("small", "little"),
    "medium": ("medium", "medium-sized"),
    "large": ("large", "big"),
    "solid": ("solid", "filled"),
    "outlined": ("outlined", "hollow"),
    "striped": ("striped",),
    "dotted": ("dotted", "spotted"),
}
MEANING = {word: name for name, words in SYNONYMS.items() for word in words}
NUMBERS = ("one", "two", "three", "four", "five")
PLURALS = {shape: shape + ("es" if shape == "cross" else "s") for shape in SHAPES}
OPENINGS = ("there is", "there are", "the picture shows", "we see", "this is")
RELATION_WORDS = {
    "left of": ("to the left of", "left of"),
    "right of": ("to the right of", "right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
    "inside": ("inside", "within"),
}
RELATION_TO_IT = {
    "left of": "to its left",
    "right of": "to its right",
    "above": "above it",
    "below": "below it",
    "inside": "inside it",
}
PLACES = {
    "top left": "in the top left",
    "top right": "in the top right",
    "bottom left": "in the bottom left",
    "bottom right": "in the bottom right",
    "top": "at the top",
    "bottom": "at the bottom",
    "left": "on the left",
    "right": "on the right",
    "centre": "in the centre",
}
DETAIL = 0.45  # how often a noun names the size, and how often the fill
CLEARLY_LARGER = 1.3  # times the radius; judge.py already accepts 1.2


def noun(thing: Object, rng: np.random.Generator, plural: bool = False) -> str:
    """An object's colour and shape, and sometimes its size and its fill."""
    words = []
    for name in (thing.size, thing.fill):
        if rng.random() < DETAIL:
            words.append(pick(rng, SYNONYMS[name]))
    shape = PLURALS[thing.shape] if plural else thing.shape
    return " ".join([*words, thing.colour, shape])


def article(phrase: str) -> str:
    """The phrase with "a" or "an" before it."""
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def clear_place(thing: Object) -> str | None:
    """The narrowest place that clearly holds, or None."""
    for place in PLACES:
        # The judge's margin is +0.05: no caption is about an object at the border of a place.
        if at_place(thing, place, margin=-0.03):
            return place
    return None


def groups_of(scene: Scene) -> list[list[Object]]:
    """Objects that are alike, together; the groups are in the order of the scene."""
    groups: dict[tuple, list[Object]] = {}
    for thing in scene.objects:
        groups.setdefault(thing.kind(), []).append(thing)
    return list(groups.values())


def listing(scene: Scene, rng: np.random.Generator) -> str:
    """All objects, as in "two red circles, a blue star and a green heart"."""
    groups = groups_of(scene)
    items = []
    for index in rng.permutation(len(groups)):
        group = groups[index]
        if len(group) == 1:
            items.append(article(noun(group[0], rng)))
        else:
            items.append(f"{NUMBERS[len(group) - 1]} {noun(group[0], rng, plural=True)}")
    if len(items) == 1:
        return items[0]
    return ", ".join(items[:-1]) + " and " + items[-1]


# --- sentences ---------------------------------------------------------------------------------


def describe_one(scene: Scene, rng: np.random.Generator) -> str:
    """A true sentence about a scene of one object."""
    thing = scene.objects[0]
    phrase = noun(thing, rng)
    a_thing = article(phrase)
    forms = [
        a_thing,
        f"there is {a_thing}",
        f"the picture shows {a_thing}",
        f"this is {a_thing}",
        f"one {phrase} and nothing else",
    ]
    place = clear_place(thing)
    if place:
        where = PLACES[place]
        forms += [
            f"{a_thing} {where}",
            f"{where} there is {a_thing}",
            f"the {phrase} is {where}",
            f"there is {a_thing} {where}",
        ]
    return pick(rng, forms)


def describe_two(scene: Scene, rng: np.random.Generator) -> str:
    """A true sentence about a scene of two objects: mostly about their relation."""
    first, second = (scene.objects[index] for index in rng.permutation(2))
    word = relation(first, second)
    if word is None:  # the second is inside the first: only the other order has a relation
        first, second = second, first
        word = relation(first, second)
    phrase, other = noun(first, rng), noun(second, rng)
    a_first, a_second = article(phrase), article(other)
    between = pick(rng, RELATION_WORDS[word])
    forms = [
        f"{a_first} {between} {a_second}",
        f"{a_first} {between} {a_second}",  # twice: the plain form is twice as frequent
        f"there is {a_first} {between} {a_second}",
        f"the {phrase} is {between} the {other}",
        f"{a_second} with {a_first} {RELATION_TO_IT[word]}",
        f"the picture shows {a_first} {between} {a_second}",
        f"{a_first} and {a_second}",
    ]
    place, other_place = clear_place(first), clear_place(second)
    if place and other_place:
        forms.append(f"{a_first} {PLACES[place]} and {a_second} {PLACES[other_place]}")
    return pick(rng, forms)


def describe_many(scene: Scene, rng: np.random.Generator) -> str:
    """A true sentence about a scene of three to five objects."""
    words = listing(scene, rng)
    shown = {thing.shape for thing in scene.objects}
    # Eight shapes and at most five objects: some shape is always absent.
    absent = pick(rng, [shape for shape in SHAPES if shape not in shown])
    forms = [
        words,
        f"there are {words}",
        f"we see {words}",
        f"the picture shows {words}",
        f"{NUMBERS[len(scene.objects) - 1]} shapes: {words}",
        f"{words} but no {PLURALS[absent]}",
    ]
    kinds = [group[0] for group in groups_of(scene)]
    largest, *rest = sorted(kinds, key=lambda thing: -thing.radius)
    # Sizes of one name differ too little to see: a comparison needs a clear gap.
    smaller = [thing for thing in rest if largest.radius > CLEARLY_LARGER * thing.radius]
    if smaller:
        phrase = noun(largest, rng)
        forms.append(f"the {phrase} is larger than the {noun(pick(rng, smaller), rng)}")
        if len(smaller) == len(rest):
            forms.append(f"the largest is {article(noun(largest, rng))}")
    return pick(rng, forms)


def describe(scene: Scene, rng: np.random.Generator) -> str:
    """A true caption of the scene."""
    if len(scene.objects) == 1:
        return describe_one(scene, rng)
    if len(scene.objects) == 2:
        return describe_two(scene, rng)
    return describe_many(scene, rng)


def several(scene: Scene, rng: np.random.Generator, count: int = 5) -> list[str]:
    """`count` true captions. They differ, unless 20 draws per caption do not give enough."""
    captions: dict[str, None] = {}  # a set that keeps the order
    for _ in range(20 * count):
        captions[describe(scene, rng)] = None
        if len(captions) == count:
            break
    return (list(captions) * count)[:count]


def swap_captions(scene: Scene, mate: int, rng: np.random.Generator) -> list[str]:
    """The caption of a scene of two objects (mate 0), or of `scenes.swapped` of it (mate 1).

    Both captions use the same words; the colours have changed places.
    """
    back, front = scene.objects
    word = relation(front, back)
    colours = (back.colour, front.colour) if mate else (front.colour, back.colour)
    between = RELATION_WORDS[word][int(rng.integers(2))]
    first, second = article(f"{colours[0]} {front.shape}"), article(f"{colours[1]} {back.shape}")
    return [f"{first} {between} {second}"]
