"""Plans: a tidy scene is known from its plan, pixel by pixel; bad plans are none."""

import dataclasses

import numpy as np
import pytest

from worlds import drawing, plans
from worlds.language import describe
from worlds.scenes import Object, Scene, sample_scene


@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_plan_tells_all_of_a_tidy_scene(level):
    rng = np.random.default_rng(level)
    for _ in range(20):
        scene = sample_scene(rng, level, tidy=True)
        text = plans.write(scene, 3)
        again = plans.read(text)
        assert len(text.split()) == plans.length(3) and plans.objects_of(plans.length(3)) == 3
        assert again is not None and plans.write(again, 3) == text
        first, second = (np.asarray(drawing.draw(each, 96)) for each in (scene, again))
        assert np.array_equal(first, second)


def test_a_plan_by_hand():
    inner = Object("star", "red", "small", "solid", 0.5, 0.25, 0.0775)
    outer = Object("circle", "blue", "large", "outlined", 0.5, 0.25, 0.21)
    low = Object("heart", "pink", "medium", "striped", 0.25, 0.75, 0.129)
    seed = next(seed for seed in range(99) if drawing.ground(Scene(seed=seed, tidy=True)) == "dark")
    scene = Scene([outer, inner, low], seed=seed, tidy=True)
    assert plans.write(scene, 3) == (
        "dark xg yd large outlined blue circle xg yd small solid red star "
        "xd yj medium striped pink heart"
    )
    assert plans.write(Scene([], seed=seed, tidy=True), 1) == "dark" + " nothing" * 6
    with pytest.raises(ValueError, match="at most 2"):
        plans.write(scene, 2)
    with pytest.raises(ValueError, match="tidy"):
        plans.write(dataclasses.replace(scene, tidy=False), 3)


@pytest.mark.parametrize(
    "caption, order",
    [
        ("a red star right of a pink heart", "star heart"),
        ("a pink heart with a red star to its right", "heart star"),
        ("the pink heart is to the left of the red star", "heart star"),
        ("a large heart and a small heart", "heart star"),  # the second fits the star better
        ("a heart", "heart star"),
        ("two stars", "star heart"),
        ("there is no such sentence", "star heart"),  # from the top
        ("", "star heart"),
    ],
)
def test_the_order_of_a_plan_is_that_of_the_caption(caption, order):
    heart = Object("heart", "pink", "medium", "solid", 0.25, 0.75, 0.129)
    star = Object("star", "red", "small", "solid", 0.75, 0.25, 0.0775)
    for objects in ([heart, star], [star, heart]):
        ordered = plans.in_order(Scene(objects, seed=5, tidy=True), caption)
        assert [thing.shape for thing in ordered.objects] == order.split()
        assert ordered.seed == 5 and ordered.tidy


def test_with_plans_a_relation_says_which_place_is_first():
    """In all captions "A left of B", the first object of the plan is left of the second."""
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(200):
        scene = sample_scene(rng, 2, tidy=True)
        caption = describe(scene, rng)
        if " left of " not in caption or " with " in caption:
            continue
        first, second = plans.in_order(scene, caption).objects
        assert first.x < second.x
        found += 1
    assert found > 20


def test_a_plan_as_people_read_it():
    first = "dark xa ya small solid red star"
    assert plans.short(first + " nothing" * 6) == first
    assert plans.short(" nothing") == plans.short("") == "(no words)"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "red",
        "dark xa",
        "dark xa ya small solid red",
        "dark ya xa small solid red star",
        "dark xa ya small solid red nothing",
        "dark nothing nothing nothing nothing nothing star",
    ],
)
def test_what_is_no_plan(text):
    assert plans.read(text) is None


def test_a_plan_with_nothing_in_the_middle():
    scene = plans.read("bright" + " nothing" * 6 + " xb yc large dotted white cross")
    assert scene is not None and [thing.kind() for thing in scene.objects] == [
        ("large", "dotted", "white", "cross")
    ]
    assert drawing.ground(scene) == "bright"
