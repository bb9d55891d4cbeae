"""Scenes and their language: everything written is true, everything held out stays out, and lies are caught."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prep_caption_synthetic import make_record
from worlds import language, scenes
from worlds.scenes import Object, Scene, sample_scene, scene_from_dict

SEEDS = st.integers(0, 2**32 - 1)
TWO = Scene(
    [
        Object("square", "blue", "large", "solid", 0.7, 0.5, 0.2),
        Object("circle", "red", "small", "outlined", 0.2, 0.5, 0.08),
    ]
)
THREE = Scene(
    [Object("circle", "red", "small", "solid", x, 0.2, 0.08) for x in (0.2, 0.5)]
    + [Object("star", "blue", "large", "solid", 0.5, 0.7, 0.2)]
)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.sampled_from([1, 2, 3]), st.sampled_from(["seen", "held"]))
def test_every_caption_parses_and_is_true(seed, level, held):
    rng = np.random.default_rng(seed)
    kinds = (
        {"pairs": held}
        if level == 1
        else {"pairs": held, "relations": held}
        if level == 2
        else {"counts": held}
    )
    scene = sample_scene(rng, level, **kinds)
    for text in language.several(scene, rng, 5):
        verdict = language.judge(text, scene)
        assert verdict["grammatical"] and verdict["truthful"] and verdict["hallucinated"][0] == 0, (
            text,
            verdict["false"],
        )
        if verdict["exact"]:  # all objects and no other: one fewer or one more is not exact
            assert not language.judge(text, Scene(scene.objects[:-1]))["exact"]
            assert not language.judge(
                text, Scene([*scene.objects, Object("heart", "pink", "small", "dotted")])
            )["exact"]
    if level == 1:
        assert verdict["exact"]


FLIPPED = {
    "left": "right",
    "right": "left",
    "above": "below",
    "below": "above",
    "over": "under",
    "under": "over",
}


def lies(text: str, scene: Scene):
    """The caption with its directions inverted, and with each colour or number changed to one that is wrong."""
    words = text.split()
    flipped = [FLIPPED.get(word, word) for word in words]
    if flipped != words:
        yield " ".join(flipped)
    other = next(
        colour for colour in scenes.COLOURS if colour not in {one.colour for one in scene.objects}
    )
    for i, word in enumerate(words):
        if word in scenes.COLOURS:
            yield " ".join([*words[:i], other, *words[i + 1 :]])
        elif word in language.NUMBERS:
            wrong = language.NUMBERS[language.NUMBERS.index(word) + 1 - 2 * (word == "five")]
            yield " ".join([*words[:i], wrong, *words[i + 1 :]])


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.sampled_from([1, 2, 3]), st.sampled_from([3, 5]))
def test_every_lie_is_caught(seed, level, number):
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng, level, number=number)
    for text in language.several(scene, rng, 4):
        told = list(lies(text, scene))
        assert told
        for lie in told:
            assert not language.judge(lie, scene)["truthful"], (text, lie)


WORDS = sorted(
    {
        word
        for phrases in (language.RELATION_WORDS.values(), language.SYNONYMS.values())
        for several in phrases
        for phrase in several
        for word in phrase.split()
    }
    | {
        "a",
        "an",
        "the",
        "is",
        "with",
        "and",
        "shapes:",
        "but",
        "no",
        "larger",
        "than",
        "there",
        "to",
        "its",
        "it",
        *language.NUMBERS,
        *scenes.SHAPES,
        *language.PLURALS.values(),
        *scenes.COLOURS,
        ",",
    }
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from(WORDS), max_size=14) | st.text(max_size=40).map(lambda text: [text])
)
def test_any_text_can_be_judged(words):
    verdict = language.judge(" ".join(words), THREE)
    assert (
        verdict["truthful"] <= verdict["grammatical"]
        and verdict["exact"] <= verdict["truthful"]
        and bool(verdict["false"]) != verdict["truthful"]
    )


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from([1, 2, 3]), st.integers(0, 3))
def test_a_seed_decides_scene_and_pixels(seed, level, noise):
    one, other = (sample_scene(np.random.default_rng(seed), level, noise=noise) for _ in range(2))
    assert one == other == scene_from_dict(one.to_dict())
    picture = scenes.draw(one)
    assert (
        picture.size == (224, 224)
        and picture.mode == "RGB"
        and np.array_equal(picture, scenes.draw(other))
    )
    assert not np.array_equal(
        picture, scenes.draw(scenes.dataclasses.replace(one, noise=(noise + 1) % 4))
    )


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from([2, 3]))
def test_objects_hardly_overlap(seed, level):
    scene = sample_scene(np.random.default_rng(seed), level)
    masks = []
    for one in scene.objects:
        paint, left, top = scenes.stencil(scenes.dataclasses.replace(one, fill="solid"), 224)
        mask = np.zeros((424, 424), bool)
        mask[100 + top : 100 + top + paint.height, 100 + left : 100 + left + paint.width] = (
            np.asarray(paint) > 127
        )
        masks.append(mask)
    for i, first in enumerate(masks):
        for j, second in enumerate(masks[:i]):
            if "inside" not in (
                scenes.relation(scene.objects[i], scene.objects[j]),
                scenes.relation(scene.objects[j], scene.objects[i]),
            ):
                assert (first & second).sum() <= 0.2 * min(first.sum(), second.sum())


@pytest.mark.parametrize(
    "split", ["train", "val", "held_pair", "held_relation", "held_count", "long", "noise3", "swap"]
)
def test_splits_keep_their_promise(split, tmp_path):
    (tmp_path / "images" / split).mkdir(parents=True)
    records = [
        make_record(str(tmp_path), split, number, (1, 2, 3), 2, scenes.INSIDE, 2, 0)
        for number in range(24)
    ]
    found = [scene_from_dict(record["scene"]) for record in records]
    pair = [
        any(scenes.held_pair(one.colour, one.shape) for one in scene.objects) for scene in found
    ]
    count = [
        any(
            scenes.held_count(sum(o.shape == one.shape for o in scene.objects), one.shape)
            for one in scene.objects
        )
        for scene in found
    ]
    assert all(pair) if split == "held_pair" else not any(pair)
    assert all(count) if split == "held_count" else not any(count)
    related = [
        scenes.held_relation(a.shape, scenes.relation(a, b), b.shape)
        for b, a in (scene.objects for scene in found if len(scene.objects) == 2)
    ]
    assert all(related) if split == "held_relation" else not any(related)
    assert {len(scene.objects) for scene in found} <= ({4, 5} if split == "long" else {1, 2, 3})
    assert {scene.noise for scene in found} <= ({3} if split == "noise3" else {0, 1, 2})
    if split == "swap":
        for left, right in zip(records[::2], records[1::2], strict=True):
            for mine, theirs in zip(left["captions"], right["captions"], strict=True):
                assert Counter(mine.split()) == Counter(theirs.split()) and mine != theirs
                assert not language.judge(mine, scene_from_dict(right["scene"]))["truthful"]
                assert not language.judge(theirs, scene_from_dict(left["scene"]))["truthful"]


@pytest.mark.parametrize(
    "scene, text, truthful, exact",
    [
        (TWO, "a red circle left of a blue square", True, True),
        (TWO, "a red circle right of a blue square", False, False),  # what BLEU-4 calls 92% right
        (TWO, "a blue square to the right of a small hollow red circle", True, True),
        (TWO, "a red square left of a blue circle", False, False),
        (TWO, "a large red circle left of a blue square", False, False),
        (TWO, "a red circle", True, False),
        (TWO, "the blue square is larger than the red circle", True, True),
        (TWO, "the largest is a red circle", False, False),
        (TWO, "a red circle, a blue square and a green star", False, False),
        (TWO, "there is a red circle and a blue square but no stars", True, True),
        (TWO, "there is a red circle and a blue square but no red circles", False, False),
        (THREE, "two red circles and a blue star", True, True),
        (THREE, "three red circles and a blue star", False, False),
        (THREE, "a red circle and a blue star", True, False),
        (THREE, "three shapes: two small red circles and a large blue star", True, True),
        (THREE, "four shapes: two small red circles and a large blue star", False, False),
        (THREE, "two red circles at the top", True, False),
        (THREE, "two red circles at the bottom", False, False),
    ],
)
def test_verdicts(scene, text, truthful, exact):
    verdict = language.judge(text, scene)
    assert verdict["grammatical"], verdict["false"]
    assert (verdict["truthful"], verdict["exact"]) == (truthful, exact) and bool(
        verdict["false"]
    ) != truthful


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "red a circle",
        "a red circle left of",
        "a red circle a blue square",
        "the the",
        "seven red circles",
        "a [MASK] circle",
    ],
)
def test_what_is_no_caption(text):
    assert language.judge(text, TWO) == {
        "grammatical": False,
        "truthful": False,
        "exact": False,
        "false": language.judge(text, TWO)["false"],
        "tallies": {},
        "recall": [0, 2],
        "hallucinated": [0, 0],
    }


def test_captions_are_many():
    rng = np.random.default_rng(0)
    texts = {text for _ in range(60) for text in language.several(TWO, rng, 5)}
    skeletons = {
        " ".join(
            word
            for word in text.split()
            if word not in {*scenes.COLOURS, *scenes.SHAPES, *language.MEANING}
        )
        for text in texts
    }
    assert len(texts) > 60 and len(skeletons) >= 12
    assert len(set(language.several(TWO, rng, 5))) == 5


def test_directions_are_equally_frequent():
    """Of 1,000 two-object scenes an eighth is inside, and the rest in equal parts, within four standard errors; --inside decides."""
    rng = np.random.default_rng(0)
    share = lambda **options: Counter(
        scenes.relation(first, second)
        for second, first in (sample_scene(rng, 2, **options).objects for _ in range(1000))
    )
    found = share()
    assert set(found) == set(scenes.RELATIONS) and 80 < found["inside"] < 170
    assert all(165 < found[name] < 272 for name in scenes.RELATIONS if name != "inside"), found
    assert share(inside=0.0)["inside"] == 0 and 550 < share(inside=0.7)["inside"] < 750
