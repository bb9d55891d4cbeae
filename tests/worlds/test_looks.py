"""Looks: every object once, from left to right, with each attribute and a true place."""

import numpy as np
import pytest

from worlds import dialogues, looks
from worlds.scenes import Object, Scene, at_place


def thing(x: float, y: float, **others) -> Object:
    kind = {"shape": "star", "colour": "red", "size": "small", "fill": "solid", **others}
    return Object(**kind, x=x, y=y, radius=0.1, angle=0.0)


def test_a_scene_by_hand():
    scene = Scene([thing(0.7, 0.5), thing(0.2, 0.1, colour="blue"), thing(0.5, 0.5)], 0, seed=0)
    assert looks.answers(scene, 5) == [
        "small solid blue star top left",
        "small solid red star centre",
        "small solid red star right",
        "nothing",
        "nothing",
    ]
    assert looks.answers(scene, 2) == looks.answers(scene, 5)[:2]
    assert looks.listed(scene) == ", ".join(looks.answers(scene, 3))
    assert looks.questions(3) == ["what is there ?", "what else ?", "what else ?"]
    assert looks.questions(0) == looks.answers(scene, 0) == []


@pytest.mark.parametrize("split", dialogues.SPLITS)
def test_looks_say_what_is_there(split):
    """The words and the place of each object; no more objects than there are looks."""
    rng = np.random.default_rng(5)
    for _ in range(50):
        scene = dialogues.sample_scene(rng, split)
        assert len(scene.objects) <= looks.LOOKS
        ordered = sorted(scene.objects, key=lambda it: it.x)
        for it, said in zip(ordered, looks.answers(scene, len(ordered)), strict=True):
            size, fill, colour, shape, *place = said.split()
            assert (size, fill, colour, shape) == (it.size, it.fill, it.colour, it.shape)
            # The middle of nine squares is wider than the centre that a caption means.
            assert at_place(it, " ".join(place), margin=1e-9 if place != ["centre"] else 0.01)
