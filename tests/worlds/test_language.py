"""Captions are many, and each is true; tests/worlds/test_judge.py shows that lies are caught."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.worlds.test_judge import TWO
from worlds import judge, language, scenes
from worlds.scenes import Object, Scene, sample_scene


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 3]), st.sampled_from(["seen", "held"]))
def test_every_caption_parses_and_is_true(seed, level, held):
    rng = np.random.default_rng(seed)
    options = {
        1: {"pairs": held},
        2: {"pairs": held, "relations": held},
        3: {"counts": held},
    }[level]
    scene = sample_scene(rng, level, **options)
    fewer = Scene(scene.objects[:-1])
    more = Scene([*scene.objects, Object("heart", "pink", "small", "dotted")])
    for text in language.several(scene, rng, 5):
        verdict = judge.judge(text, scene)
        assert verdict["grammatical"] and verdict["truthful"], (text, verdict["false"])
        assert verdict["hallucinated"][0] == 0, text
        if verdict["exact"]:  # all objects and no other object
            assert not judge.judge(text, fewer)["exact"]
            assert not judge.judge(text, more)["exact"]
    if level == 1:
        assert verdict["exact"]


def test_captions_are_many():
    rng = np.random.default_rng(0)
    texts = {text for _ in range(60) for text in language.several(TWO, rng, 5)}
    left_out = {*scenes.COLOURS, *scenes.SHAPES, *language.MEANING}
    skeletons = {" ".join(word for word in text.split() if word not in left_out) for text in texts}
    assert len(texts) > 60 and len(skeletons) >= 12
    assert len(set(language.several(TWO, rng, 5))) == 5


def test_a_scene_with_few_captions_repeats_them():
    plain = Scene([Object("star", "red", "large", "solid", 0.3, 0.5, 0.2)])
    assert len(language.several(plain, np.random.default_rng(0), 200)) == 200


@pytest.mark.parametrize("phrase, expected", [("red star", "a red star"), ("orange", "an orange")])
def test_article(phrase, expected):
    assert language.article(phrase) == expected


def test_swap_captions():
    mine, theirs = (
        language.swap_captions(TWO, mate, np.random.default_rng(0))[0] for mate in (0, 1)
    )
    assert mine.startswith("a red circle") and theirs.startswith("a blue circle")
    assert judge.judge(mine, TWO)["exact"] and judge.judge(theirs, scenes.swapped(TWO))["exact"]
