"""Plans: what a painter writes of a picture before it paints it.

A plan names the background and then each object: its column and row, its size, fill, colour and
shape. An object that is not there is "nothing", six times, so that all plans have as many words.

The objects stand in the order in which the caption names them (`in_order`). So the first of "a star
above a circle" has the smaller row. From top to bottom, a painter would first have to find out
which of the two this is. Objects that the caption does not name come last, from the top.

    dark  xd yf medium outlined red triangle  xh yh medium outlined blue square

Columns are xa, xb, … from the left, rows are ya, yb, … from the top: the lines of the grid of tidy
scenes (scenes.py). A tidy scene without noise is known from its plan, up to its pixels. So what the
words leave open is decided in the plan, and the tokens of the picture follow from it.
"""

import dataclasses

import numpy as np

from worlds import drawing, judge
from worlds.reader import Ungrammatical, parse
from worlds.scenes import COLOURS, FILLS, RADIUS, SHAPES, SIZES, TIDY_PLACES, Object, Scene

NOTHING = "nothing"
ORDER = (
    "caption"  # of the objects; checkpoints store it. Plans without it were ordered from the top
)
LETTERS = "abcdefghijklm"
COLUMNS = tuple("x" + letter for letter in LETTERS[: TIDY_PLACES + 1])
ROWS = tuple("y" + letter for letter in LETTERS[: TIDY_PLACES + 1])
PARTS = (COLUMNS, ROWS, SIZES, FILLS, COLOURS, SHAPES)  # of an object, in their order


def every_word() -> list[str]:
    """All words of plans, a line for each word that a plan may begin with."""
    rest = [NOTHING]
    for part in PARTS:
        rest += part
    return [" ".join([ground, *rest]) for ground in drawing.GROUNDS]


def length(objects: int) -> int:
    """Words of a plan of at most this many objects."""
    return 1 + objects * len(PARTS)


def objects_of(words: int) -> int:
    """The objects that a plan of this many words has room for."""
    return (words - 1) // len(PARTS)


def in_order(scene: Scene, caption: str) -> Scene:
    """The scene with its objects in the order in which a caption names them.

    Of objects that a noun fits alike, the order is that of the places, from the top. A caption
    outside of the grammar names none.
    """
    # What lies behind comes first at the same place.
    things = sorted(scene.objects, key=lambda thing: (line(thing.y), line(thing.x)))
    if len(things) < 2:
        return scene
    try:
        mentions = judge.mentions_of(parse(caption))
    except Ungrammatical:
        mentions = []
    pairs = judge.align(mentions, things)
    named = [thing for _, thing in pairs if thing is not None]
    rest = [thing for thing in things if not any(thing is other for other in named)]
    return dataclasses.replace(scene, objects=[*named, *rest])


def write(scene: Scene, objects: int) -> str:
    """The plan of a tidy scene, with room for this many objects, in the order of the scene.

    Raises ValueError for a scene that is not tidy or has more objects.
    """
    if not scene.tidy or len(scene.objects) > objects:
        raise ValueError(f"a tidy scene of at most {objects} objects")
    words = [drawing.ground(scene)]
    for thing in scene.objects:
        words += [COLUMNS[line(thing.x)], ROWS[line(thing.y)]]
        words += thing.kind()
    words += [NOTHING] * (length(objects) - len(words))
    return " ".join(words)


def short(text: str) -> str:
    """A plan as people read it: without the objects that are not there."""
    return " ".join(word for word in text.split() if word != NOTHING) or "(no words)"


def line(value: float) -> int:
    """The line of the grid at a share of the side."""
    return round(value * TIDY_PLACES)


def read(text: str) -> Scene | None:
    """The scene of a plan, None if it is none. Its seed gives the plan's background."""
    ground, *words = text.split() or [""]
    if ground not in drawing.GROUNDS or len(words) % len(PARTS):
        return None
    objects = []
    for first in range(0, len(words), len(PARTS)):
        phrase = words[first : first + len(PARTS)]
        if phrase == [NOTHING] * len(PARTS):
            continue
        if any(word not in part for word, part in zip(phrase, PARTS, strict=True)):
            return None
        x, y = COLUMNS.index(phrase[0]) / TIDY_PLACES, ROWS.index(phrase[1]) / TIDY_PLACES
        size, fill, colour, shape = phrase[2:]
        radius = float(np.mean(RADIUS[size]))
        objects.append(Object(shape, colour, size, fill, x, y, radius))
    scene = Scene(objects, tidy=True)
    while drawing.ground(scene) != ground:
        scene = dataclasses.replace(scene, seed=scene.seed + 1)
    return scene
