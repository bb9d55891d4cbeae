"""Plans: a tidy scene is known from its plan, pixel by pixel; bad plans are none."""

import dataclasses

import numpy as np
import pytest

from worlds import drawing, plans
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
    scene = Scene([low, outer, inner], seed=seed, tidy=True)
    assert plans.write(scene, 3) == (
        "dark xg yd large outlined blue circle xg yd small solid red star "
        "xd yj medium striped pink heart"
    )
    assert plans.write(Scene([], seed=seed, tidy=True), 1) == "dark" + " nothing" * 6
    with pytest.raises(ValueError, match="at most 2"):
        plans.write(scene, 2)
    with pytest.raises(ValueError, match="tidy"):
        plans.write(dataclasses.replace(scene, tidy=False), 3)


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
