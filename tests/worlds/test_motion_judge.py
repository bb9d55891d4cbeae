"""The judge of clips: by hand, and for captions whose order or direction was turned around."""

import numpy as np
import pytest

from worlds import motion, motion_language
from worlds.motion import Event, Program
from worlds.motion_judge import judge, marks
from worlds.motion_sampling import sample
from worlds.scenes import Object

PROGRAM = Program(
    (
        Object("circle", "red", "small", "solid", 0.2, 0.3, 0.08),
        Object("square", "blue", "large", "striped", 0.6, 0.7, 0.2),
    ),
    (Event("x", 0, 0, 3, 0.2, 0.6), Event("radius", 1, 4, 6, 0.2, 0.08)),
)


@pytest.mark.parametrize(
    "text, truthful, exact",
    [
        ("a red circle moves right, then a blue square shrinks", True, True),
        ("a blue square shrinks after a red circle moves to the right and stops", True, True),
        ("a red circle moves right and a striped blue square shrinks", True, True),
        ("a red circle moves right", True, False),
        ("a large blue square shrinks", True, False),  # before it shrinks
        ("a small blue square shrinks", True, False),  # afterwards
        ("a medium blue square shrinks", False, False),
        ("a blue square grows", False, False),
        ("a red circle moves left", False, False),
        ("a red circle starts to move right", False, False),
        ("a blue square shrinks before a red circle moves right", False, False),
        ("a red circle moves right while a blue square shrinks", False, False),
        ("a red circle moves right and a red circle moves right", False, False),  # it moves once
        ("a red circle passes over a blue square", False, False),
        ("a green circle moves right", False, False),
        ("red red", False, False),
        (" and ".join(["a red circle grows"] * 7), False, False),
    ],
)
def test_by_hand(text, truthful, exact):
    verdict = judge(text, PROGRAM)
    assert (verdict["truthful"], verdict["exact"]) == (truthful, exact), verdict
    assert bool(verdict["false"]) != truthful


def test_figures_by_hand():
    verdict = judge("a green circle moves right after a blue square shrinks", PROGRAM)
    assert verdict["tallies"] == {
        "verb": [2, 2],
        "colour": [1, 2],
        "shape": [2, 2],
        "order": [0, 1],
    }
    assert verdict["recall"] == [1, 2] and verdict["hallucinated"] == [1, 2]


def test_a_pass_is_also_a_move():
    program = Program(PROGRAM.objects, (Event("x", 0, 0, 3, 0.2, 0.9, other=1),))
    assert judge("a red circle passes over a blue square", program)["exact"]
    assert judge("a red circle moves right", program)["exact"]
    assert not judge("a red circle passes over a red circle", program)["truthful"]


def test_a_wrong_order_is_false():
    """Every inverted order word makes a caption false."""
    other = {", then": " after", " before ": " after ", " after ": " before "}
    inverted = 0
    for number in range(120):
        program = sample(7, "train", number)
        for text in motion_language.several(program, np.random.default_rng(number), 4):
            for word, opposite in other.items():
                if word in text:
                    wrong = text.replace(word, opposite)
                    assert judge(text, program)["truthful"]
                    assert not judge(wrong, program)["truthful"], (text, wrong)
                    inverted += 1
    assert inverted > 30


def test_a_caption_of_the_reversed_clip_is_false():
    for number in range(40):
        program = sample(8, "swap_time", number)
        texts = motion_language.several(motion.reverse(program), np.random.default_rng(0), 3)
        for text in texts:
            assert not judge(text, program)["exact"]


def test_a_mark_for_each_deed_and_each_order():
    assert marks("a green circle moves right after a blue square shrinks", PROGRAM) == [
        ("green circle right (but: red circle right)", False),
        ("blue square shrinks", True),
        ("shrinks before right", False),
    ]
    assert [is_true for _, is_true in marks(" and ".join(["a red circle grows"] * 7), PROGRAM)] == [
        False
    ]
    assert [is_true for _, is_true in marks("red red", PROGRAM)] == [False]
