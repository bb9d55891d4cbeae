"""Scenes: the seed decides them, objects keep apart, and what is held out stays out."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worlds import drawing, scenes
from worlds.language import PLACES
from worlds.scenes import Object, sample_scene, scene_from_dict

SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from([1, 2, 3]), st.integers(0, 3))
def test_a_seed_decides_the_scene(seed, level, noise):
    scene, again = (sample_scene(np.random.default_rng(seed), level, noise=noise) for _ in range(2))
    assert scene == again == scene_from_dict(scene.to_dict())
    assert len(scene.objects) == level and scene.noise == noise


def covered(thing: Object) -> np.ndarray:
    """Where the object lies, 100 pixels of margin around the image: (424, 424) bool."""
    solid = scenes.dataclasses.replace(thing, fill="solid")
    paint, left, top = drawing.stencil(solid, 224)
    mask = np.zeros((424, 424), bool)
    rows = slice(100 + top, 100 + top + paint.height)
    mask[rows, 100 + left : 100 + left + paint.width] = np.asarray(paint) > 127
    return mask


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from([2, 3]))
def test_objects_hardly_overlap(seed, level):
    objects = sample_scene(np.random.default_rng(seed), level).objects
    masks = [covered(thing) for thing in objects]
    for i, first in enumerate(masks):
        for j, second in enumerate(masks[:i]):
            words = {
                scenes.relation(objects[i], objects[j]),
                scenes.relation(objects[j], objects[i]),
            }
            if "inside" not in words:
                assert (first & second).sum() <= 0.2 * min(first.sum(), second.sum())


def test_directions_are_equally_frequent():
    """Of 1,000 two-object scenes an eighth is inside, and the directions are equally frequent.

    The bounds are four standard errors wide. `inside` decides the share.
    """
    rng = np.random.default_rng(0)

    def words(**options) -> Counter:
        pairs = [sample_scene(rng, 2, **options).objects for _ in range(1000)]
        return Counter(scenes.relation(front, back) for back, front in pairs)

    counts = words()
    assert set(counts) == set(scenes.RELATIONS) and 80 < counts["inside"] < 170
    assert all(165 < counts[word] < 272 for word in scenes.RELATIONS if word != "inside"), counts
    assert words(inside=0.0)["inside"] == 0
    assert 550 < words(inside=0.7)["inside"] < 750


@pytest.mark.parametrize(
    "x, y, word",
    [
        (0.2, 0.5, "left of"),
        (0.8, 0.5, "right of"),
        (0.5, 0.2, "above"),
        (0.5, 0.8, "below"),
        (0.55, 0.5, "inside"),
        (0.2, 0.2, None),  # neither clearly left nor clearly above
    ],
)
def test_relations(x, y, word):
    large = Object("circle", "blue", "large", "solid", 0.5, 0.5, 0.2)
    small = Object("star", "red", "small", "solid", x, y, 0.08)
    assert scenes.relation(small, large) == word


@pytest.mark.parametrize(
    "x, y, places",
    [
        (0.1, 0.1, {"top left", "top", "left"}),
        (0.9, 0.5, {"right"}),
        (0.5, 0.5, {"centre"}),
        (0.5, 0.95, {"bottom"}),
    ],
)
def test_places(x, y, places):
    thing = Object("star", "red", "small", "solid", x, y, 0.08)
    assert {place for place in PLACES if scenes.at_place(thing, place)} == places
