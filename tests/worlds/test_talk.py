"""Questions about a scene: words and meaning are inverse, answers are true or open."""

import pytest

from tests.worlds.test_dialogues import every_turn
from worlds import talk
from worlds.reader import Noun
from worlds.scenes import Object, Scene
from worlds.talk import Question

STAR = Object("star", "red", "small", "solid", x=0.2, y=0.44, radius=0.08)
CIRCLE = Object("circle", "blue", "large", "striped", x=0.6, y=0.5, radius=0.2)
DOT = Object("circle", "red", "small", "solid", x=0.62, y=0.52, radius=0.07)
SCENE = Scene([STAR, CIRCLE, DOT])


def answer(text: str, referent: int | None = None) -> str | None:
    found = talk.answer(talk.read(text), SCENE, referent)
    return None if found is None else found.text


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("how many circles are there ?", "two"),
        ("how many red shapes are there?", "two"),
        ("how many green shapes are there ?", "zero"),
        ("is there a striped shape ?", "yes"),
        ("is there an orange star ?", "no"),
        ("what colour is the star ?", "red"),
        ("what colour is the circle ?", None),  # there are two circles
        ("what size is the blue circle ?", "large"),
        ("where is the star ?", "on the left"),
        ("is the star to the left of the blue circle ?", "yes"),
        ("is the star above the blue circle ?", None),  # neither above nor clearly not
        ("is the blue circle left of the star ?", "no"),
        ("what is inside the blue circle ?", "a red circle"),
        ("is there anything inside the star ?", "no"),
        ("is the small circle to the right of the blue circle ?", "no"),  # it is inside
        ("what is to the right of the star ?", None),  # two shapes are
        ("what colour is the heart ?", None),  # there is none
        ("and its colour ?", None),  # nothing was named yet
    ],
)
def test_answers(question, expected):
    assert answer(question) == expected


def test_it_is_the_object_that_was_last_named_alone():
    found = talk.answer(talk.read("what is inside the blue circle ?"), SCENE)
    assert found == talk.Answer("a red circle", 2)
    assert answer("what size is it ?", 2) == "small"
    assert answer("how many others have its colour ?", 2) == "one"
    # A noun that fits two objects names no object.
    assert talk.answer(talk.read("is there a circle ?"), SCENE, 0) == talk.Answer("yes", 0)
    assert talk.answer(talk.read("is there a blue shape ?"), SCENE, 0) == talk.Answer("yes", 1)


def test_reading_is_the_inverse_of_asking():
    for _, turn in every_turn():
        question = talk.read(turn.question)
        assert talk.ask(question) == turn.question
        assert question.family == turn.family
        assert question.has_pronoun == (turn.distance > 0)


def test_every_kind_can_be_asked():
    asked = {talk.read(turn.question).kind for _, turn in every_turn()}
    assert asked == set(talk.KINDS)


@pytest.mark.parametrize(
    "text", ["", "?", "what is love ?", "how many dogs are there ?", "is it ?", "where is it now ?"]
)
def test_what_is_no_question_is_refused(text):
    with pytest.raises(talk.Unread):
        talk.read(text)


def test_a_noun_without_a_shape():
    assert talk.ask(Question("how many", Noun(colour="red"))) == "how many red shapes are there ?"
    assert talk.read("how many shapes are there ?") == Question("how many", Noun())
