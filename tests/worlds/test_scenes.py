"""Scenes: the seed decides them, objects keep apart, and what is held out stays out."""

import math
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


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from([1, 2, 3]))
def test_a_tidy_scene_leaves_out_what_no_caption_says(seed, level):
    scene = sample_scene(np.random.default_rng(seed), level, tidy=True)
    assert scene_from_dict(scene.to_dict()) == scene and scene.tidy
    assert scenes.are_clear(scene.objects)
    for thing in scene.objects:
        assert thing.angle == 0 and thing.radius == np.mean(scenes.RADIUS[thing.size])
        for place in (thing.x * scenes.TIDY_PLACES, thing.y * scenes.TIDY_PLACES):
            assert place == pytest.approx(round(place))


def test_a_tidied_scene_says_the_same():
    """A relation of two objects that the grid would change is drawn again."""
    back = Object("circle", "red", "large", "solid", 0.5, 0.5, 0.2)
    inner = Object("star", "blue", "small", "solid", 0.55, 0.47, 0.08, angle=20.0)
    centred = scenes.tidied([back, inner])
    assert (centred[1].x, centred[1].y) == (0.5, 0.5)
    slanted = Object("star", "blue", "small", "solid", 0.9, 0.80, 0.08)
    assert scenes.relation(slanted, back) is None
    beside = Object("star", "blue", "small", "solid", 0.86, 0.7095, 0.08)
    assert scenes.relation(beside, back) == "right of"
    assert scenes.tidied([back, beside]) is None  # at (10, 9) of the grid it slants
    assert scenes.tidied([Object("star", "blue", "large", "solid", 0.2, 0.5, 0.2)]) is None


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


@pytest.mark.parametrize("level, number", [(2, 3), (3, 3)])
def test_objects_of_a_tidy_scene_stand_apart(level, number):
    rng = np.random.default_rng(5)
    for _ in range(30):
        scene = sample_scene(rng, level, number=number, tidy=True, inside=0.0)
        for index, thing in enumerate(scene.objects):
            for other in scene.objects[:index]:
                distance = math.hypot(thing.x - other.x, thing.y - other.y)
                assert distance >= thing.radius + other.radius + 2 / 12 - 1e-9
