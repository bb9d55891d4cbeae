"""Changes in words: the grammar, captions after a change, and their truth over many seeds."""

import numpy as np
import pytest

from worlds import changes
from worlds.changes import Impossible, change_caption, change_scene, read
from worlds.judge import holds
from worlds.language import PLURALS, describe
from worlds.reader import Noun, Ungrammatical
from worlds.scenes import COLOURS, SHAPES, pick, sample_scene

EXAMPLES = {
    ("a red star above a blue circle", "the star is green"): "a green star above a blue circle",
    ("a red star above a blue circle", "the star is orange."): "an orange star above a blue circle",
    (
        "the large red star is above the blue circle",
        "the red star is now a striped blue heart",
    ): "the large striped blue heart is above the blue circle",
    ("a red star above a blue circle", "there is no star"): "a blue circle",
    (
        "a red star in the top left and a blue circle on the right",
        "there are no stars",
    ): "a blue circle on the right",
    (
        "three shapes: two red circles and a green heart",
        "the heart is outlined",
    ): "three shapes: two red circles and an outlined green heart",
    (
        "two red circles, a star and a green heart but no squares",
        "there is no heart",
    ): "two red circles and a star",
}


@pytest.mark.parametrize("before", EXAMPLES, ids=lambda pair: pair[1])
def test_examples(before):
    assert change_caption(before[0], read(before[1])).new == EXAMPLES[before]


REFUSED = {
    ("a red star and a blue star", "the star is green"): "2 things",
    ("a red star", "the circle is green"): "nothing in the caption",
    ("two red stars and a heart", "the star is green"): "2 things",
    ("two red circles and a blue circle", "the blue circle is red"): "number of red circle",
    ("a red star but no squares", "the star is now a red square"): "number of square",
    ("a red star", "there is no star"): "an empty picture",
    ("a star and a circle", "there is no red star"): "nothing in the caption",
    ("a red star, a star and a circle", "there is no red star"): "leaves open",
}


@pytest.mark.parametrize("before", REFUSED, ids=lambda pair: pair[1])
def test_what_a_caption_does_not_allow(before):
    with pytest.raises(Impossible, match=REFUSED[before]):
        change_caption(before[0], read(before[1]))


@pytest.mark.parametrize(
    "text",
    ["", "the star", "the star is", "make it green", "the star is green now", "the star is large"],
)
def test_what_is_no_change(text):
    with pytest.raises(Ungrammatical):
        read(text)


def random_change(scene, rng) -> str:
    """A change of one of the objects, in words."""
    thing = pick(rng, scene.objects)
    kind = rng.integers(4)
    if kind == 0:
        return f"the {thing.colour} {thing.shape} is {pick(rng, COLOURS)}"
    if kind == 1:
        return f"the {thing.shape} is now {pick(rng, ('solid', 'hollow'))}"
    if kind == 2:
        return f"the {thing.shape} is now a {pick(rng, COLOURS)} {pick(rng, SHAPES)}"
    return pick(
        rng, (f"there is no {thing.colour} {thing.shape}", f"there are no {PLURALS[thing.shape]}")
    )


def test_changed_captions_are_true_of_changed_scenes():
    """Over many seeds; most changes fit, and a change that fits the caption fits the scene."""
    done = {"changed": 0, "gone": 0}
    for seed in range(1500):
        rng = np.random.default_rng(seed)
        scene = sample_scene(rng, 1 + seed % 3)
        caption, text = describe(scene, rng), random_change(scene, rng)
        change = read(text)
        try:
            changed = change_caption(caption, change)
            after = change_scene(scene, change)
        except Impossible:
            continue
        claims = [*changed.changed, *changed.kept]
        assert changed.changed and all(holds(claim, after) for claim in claims), (caption, text)
        done["gone" if change.to is None else "changed"] += 1
    assert done["gone"] > 150 and done["changed"] > 400, done


def test_scenes_change_one_thing():
    rng = np.random.default_rng(0)
    scene = sample_scene(rng, 2)
    first, second = scene.objects
    change = changes.Change(Noun(shape=first.shape), Noun(colour="white"))
    after = change_scene(scene, change)
    assert after.objects[0].colour == "white" and after.objects[1] == second
    assert (after.objects[0].x, after.objects[0].radius) == (first.x, first.radius)
    with pytest.raises(Impossible, match="nothing in the scene"):
        change_scene(after, changes.Change(Noun("", "", "red", "cross"), None))


def test_possible_changes_fit():
    """Every scene's caption has some, and each fits its caption."""
    kinds = set()
    for seed in range(200):
        rng = np.random.default_rng(seed)
        scene = sample_scene(rng, 1 + seed % 3)
        caption = describe(scene, rng)
        texts = changes.possible(caption, rng)
        for text in texts:
            changed = change_caption(caption, read(text))
            assert changed.changed
            kinds.add(changed.changed[0].kind)
    assert kinds == {"some", "none", "count"} and changes.possible("not in the grammar", rng) == []
