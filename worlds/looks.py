"""Looks: what a model notes of a picture before it answers questions about it.

A look is a turn of a dialogue that nobody asked. The first look names the leftmost object, the next
look the object to its right, and so on. Behind the last object, a look says "nothing".

    what is there ?   large dotted green triangle top left
    what else ?       small solid green circle top right
    what else ?       nothing

Every attribute is said, and a place of nine. So the questions behind the looks can be answered
from words, where a question alone needs all objects to be found at one time.
"""

from worlds.scenes import Object, Scene

FAMILY = "look"
FIRST, NEXT = "what is there ?", "what else ?"
NOTHING = "nothing"
LOOKS = 5  # the most objects of a dialogue's scene: those of the split `long`
BORDER = 0.4  # of the image's side, as in scenes.at_place


def questions(count: int) -> list[str]:
    """The questions of `count` looks."""
    return [FIRST, *[NEXT] * (count - 1)][:count]


def place(thing: Object) -> str:
    """The place of nine that holds an object's middle: "top left", "top", …, "centre"."""
    words = []
    for middle, near, far in ((thing.y, "top", "bottom"), (thing.x, "left", "right")):
        if middle < BORDER:
            words.append(near)
        elif middle > 1 - BORDER:
            words.append(far)
    return " ".join(words) or "centre"


def name(thing: Object) -> str:
    """What a look says of an object: its size, fill, colour, shape and place."""
    return f"{thing.size} {thing.fill} {thing.colour} {thing.shape} {place(thing)}"


def in_order(scene: Scene) -> list[int]:
    """The objects of a scene from left to right."""
    return sorted(range(len(scene.objects)), key=lambda index: scene.objects[index].x)


def answers(scene: Scene, count: int = LOOKS) -> list[str]:
    """What `count` looks say of a scene, from left to right."""
    names = [name(scene.objects[index]) for index in in_order(scene)] + [NOTHING] * count
    return names[:count]


def listed(scene: Scene) -> str:
    """What all looks say of a scene, as a caption."""
    return ", ".join(answers(scene, len(scene.objects)))
