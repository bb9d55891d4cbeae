"""Contradictions: true answers have none, and each kind of false answer is found."""

import pytest

from tests.worlds.test_dialogues import drawn
from worlds import consistency, dialogues
from worlds.consistency import Promise, contradiction, possible, promised
from worlds.reader import Noun

CIRCLES = ("how many circles are there ?", "two")


def first(*turns: tuple[str, str]) -> int | None:
    return contradiction([question for question, _ in turns], [answer for _, answer in turns])


def test_true_answers_never_contradict_each_other():
    """Of the own scene, and of another: every picture is free of contradictions."""
    dialogue = drawn()
    for number, (_, _, turns) in enumerate(dialogue):
        questions = [turn.question for turn in turns]
        assert contradiction(questions, [turn.answer for turn in turns]) is None
        other = dialogue[number - 1][1]
        # What "it" is, or "the star", depends on the scene, so only other questions are asked.
        pairs = zip(questions, dialogues.answers(questions, other), strict=True)
        counted = [pair for pair in pairs if pair[0].startswith(("how many ", "is there a"))]
        known = [pair for pair in counted if " the " not in pair[0] and " it" not in pair[0]]
        assert contradiction([q for q, _ in known], [a for _, a in known]) is None


@pytest.mark.parametrize(
    ("turns", "turn"),
    [
        ([CIRCLES, ("is there a red circle ?", "no"), ("is there a circle ?", "no")], 2),
        ([CIRCLES, ("how many shapes are there ?", "one")], 1),
        ([CIRCLES, ("is there a star ?", "yes"), ("how many shapes are there ?", "two")], 2),
        ([("is there a red star ?", "no"), ("what colour is the star ?", "red")], 1),
        ([("what colour is the star ?", "red"), ("how many red stars are there ?", "zero")], 1),
        ([("what colour is the star ?", "red"), ("and its colour ?", "blue")], 1),
        ([("what is left of the star ?", "a red circle"), ("is there a circle ?", "no")], 1),
        (
            [
                ("what colour is the star ?", "red"),
                ("how many others have its colour ?", "one"),
                ("how many red shapes are there ?", "one"),
            ],
            2,
        ),
        # No contradiction: wider, unclear, unknown or true.
        ([CIRCLES, ("how many red circles are there ?", "one")], None),
        (
            [CIRCLES, ("is there a red shape ?", "yes"), ("how many shapes are there ?", "two")],
            None,
        ),
        ([("is there a star ?", "yes"), ("what colour is it ?", "red")], None),
        ([("what colour is the star ?", "red"), ("what colour is the circle ?", "blue")], None),
        ([CIRCLES, ("is there a circle ?", "nonsense"), ("who are you ?", "no")], None),
        ([], None),
    ],
)
def test_contradictions(turns, turn):
    assert first(*turns) == turn


def test_after_is_there_it_may_be_another_thing():
    asked = [("what colour is the star ?", "red"), ("is there a blue circle ?", "yes")]
    assert first(*asked, ("and its colour ?", "blue")) is None


def test_only_disjoint_things_add_up():
    red, star, circle = Noun(colour="red"), Noun(shape="star"), Noun(shape="circle")
    promises = [Promise(red, 2), Promise(star, 2), Promise(circle, 1)]
    assert promised(promises) == 3 and promised(promises[:2]) == 2 and promised([]) == 0
    assert possible([*promises, Promise(Noun(), 0, 3)])
    assert not possible([*promises, Promise(Noun(), 0, 2)])


def test_an_answer_names_a_thing_or_nothing():
    assert consistency.thing_of("a red star") == Noun(colour="red", shape="star")
    assert consistency.thing_of("an orange shape") == Noun(colour="orange")
    assert consistency.thing_of("yes") is None and consistency.thing_of("a red star yes") is None
