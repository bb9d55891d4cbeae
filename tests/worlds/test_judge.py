"""What makes a caption true: known verdicts, caught lies, and a verdict for any text."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worlds import language, scenes
from worlds.judge import align, explain, judge, marks
from worlds.reader import Claim, Noun, parse
from worlds.scenes import Object, Scene, sample_scene

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
    verdict = judge(text, scene)
    assert verdict["grammatical"], verdict["false"]
    assert (verdict["truthful"], verdict["exact"]) == (truthful, exact)
    assert bool(verdict["false"]) != truthful


def test_tallies_count_attributes_and_claims():
    verdict = judge("a large red circle right of a blue square and a green star", TWO)
    assert verdict["tallies"] == {
        "size": [0, 1],
        "colour": [2, 3],
        "shape": [2, 3],
        "relation": [0, 1],
    }
    assert verdict["recall"] == [2, 2] and verdict["hallucinated"] == [1, 3]
    assert verdict["false"] == [
        "large red circle",
        "large red circle right of blue square",
        "green star",
    ]


FLIPPED = {
    "left": "right",
    "right": "left",
    "above": "below",
    "below": "above",
    "over": "under",
    "under": "over",
}


def lies(text: str, scene: Scene) -> list[str]:
    """The caption with inverted directions, and with each colour and each number made wrong."""
    words = text.split()
    changed = []
    flipped = [FLIPPED.get(word, word) for word in words]
    if flipped != words:
        changed.append(flipped)
    present = {thing.colour for thing in scene.objects}
    absent = next(colour for colour in scenes.COLOURS if colour not in present)
    for index, word in enumerate(words):
        if word in scenes.COLOURS:
            changed.append([*words[:index], absent, *words[index + 1 :]])
        elif word in language.NUMBERS:
            number = language.NUMBERS.index(word)
            wrong = language.NUMBERS[number - 1 if word == "five" else number + 1]
            changed.append([*words[:index], wrong, *words[index + 1 :]])
    return [" ".join(lie) for lie in changed]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 3]), st.sampled_from([3, 5]))
def test_every_lie_is_caught(seed, level, number):
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng, level, number=number)
    for text in language.several(scene, rng, 4):
        wrong = lies(text, scene)
        assert wrong
        for lie in wrong:
            assert not judge(lie, scene)["truthful"], (text, lie)


def words_of_the_language() -> list[str]:
    words = set(
        [
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
            ",",
        ]
    )
    for table in (language.RELATION_WORDS, language.SYNONYMS):
        for phrases in table.values():
            words.update(" ".join(phrases).split())
    words.update(language.NUMBERS, scenes.SHAPES, language.PLURALS.values(), scenes.COLOURS)
    return sorted(words)


ANY_WORDS = st.lists(st.sampled_from(words_of_the_language()), max_size=14).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(ANY_WORDS | st.text(max_size=40))
def test_any_text_can_be_judged(text):
    verdict = judge(text, THREE)
    assert verdict["exact"] <= verdict["truthful"] <= verdict["grammatical"]
    assert bool(verdict["false"]) != verdict["truthful"]


@pytest.mark.parametrize("text", ["", "red a circle", "the the", "a [MASK] circle"])
def test_the_verdict_on_what_is_no_caption(text):
    verdict = judge(text, TWO)
    assert len(verdict.pop("false")) == 1
    assert verdict == {
        "grammatical": False,
        "truthful": False,
        "exact": False,
        "tallies": {},
        "recall": [0, 2],
        "hallucinated": [0, 0],
    }


def test_mentions_mean_the_objects_that_they_fit_best():
    circle, square = Noun(colour="blue", shape="circle"), Noun(shape="square")
    pairs = align([circle, square, Noun(shape="star")], TWO.objects)
    assert pairs == [(circle, TWO.objects[1]), (square, TWO.objects[0]), (Noun(shape="star"), None)]
    assert align([], TWO.objects) == []


@pytest.mark.parametrize(
    "caption, words",
    [
        ("a red star", ["red star"]),
        ("two red stars", ["exactly 2 red star"]),
        ("the star is on the left", ["star", "star on the left"]),
        ("the star is larger than the heart", ["star", "heart", "star larger than heart"]),
        ("the largest is a star", ["star", "star is the largest"]),
        ("two shapes: a star but no hearts", ["2 shapes in all", "star", "no heart"]),
    ],
)
def test_claims_in_words(caption, words):
    assert [explain(claim) for claim in parse(caption)] == words


def test_an_empty_scene_has_no_largest_object():
    assert not judge("the largest is a star", Scene())["truthful"]
    assert explain(Claim("total", number=3)) == "3 shapes in all"


def test_a_mark_for_each_claim():
    assert marks("a red circle right of a blue star", TWO) == [
        ("red circle", True),
        ("blue star", False),
        ("red circle right of blue star", False),
    ]
    ((reason, is_true),) = marks("red red", TWO)
    assert reason and not is_true
