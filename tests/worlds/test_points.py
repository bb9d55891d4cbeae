"""Notes before answers: by hand, and so that the answers follow from them."""

import pytest

from worlds import dialogues, points, talk
from worlds.scenes import Object, Scene
from worlds.talk import NUMBERS

# From left to right: a red star above, a blue circle, a red square below it.
SQUARE = Object("square", "red", "medium", "solid", 0.8, 0.8, 0.12)
STAR = Object("star", "red", "small", "solid", 0.2, 0.2, 0.08)
CIRCLE = Object("circle", "blue", "medium", "solid", 0.75, 0.2, 0.12)
SCENE = Scene([SQUARE, STAR, CIRCLE])


def test_notes_by_hand():
    asked = {
        "how many red shapes are there ?": "one three it zero",
        "is there a green shape ?": "it zero",
        "is there a blue shape ?": "two it two",
        "what shape is it ?": "two it two",
        "how many others have its size ?": "two three it two",
        "is there anything left of it ?": "two one it two",
        "what is below it ?": "two three it three",
        "is it above the circle ?": "three two it three",
        "and its fill ?": "three it three",
        "where is the star ?": "one it one",
        "how many solid shapes are there ?": "one two three it one",
    }
    assert points.notes(list(asked), SCENE) == list(asked.values())


def test_notes_of_questions_without_an_answer():
    with pytest.raises(ValueError, match="no answer"):
        points.notes(["what colour is it ?"], SCENE)
    with pytest.raises(talk.Unread):
        points.notes(["what ?"], SCENE)


@pytest.mark.parametrize("split", dialogues.SPLITS)
def test_answers_follow_from_notes(split):
    """Counts are the numbers of objects that are noted; "it" is the object that the oracle means."""
    for number in range(6):
        scene, turns = dialogues.sample(split, number, seed=1)
        found = points.notes([turn.question for turn in turns], scene)
        places = points.in_order(list(range(len(scene.objects))), scene)
        it = None
        for turn, note in zip(turns, found, strict=True):
            *words, it_word, after = note.split()
            noted = [places[NUMBERS.index(word) - 1] for word in words]
            assert it_word == points.IT and len(set(noted)) == len(noted)
            question = talk.read(turn.question)
            subject, others = noted[:1], noted[1:]
            if question.has_pronoun:
                assert subject == [it]
            if question.kind == "how many":
                assert turn.answer == NUMBERS[len(noted)]
            elif question.kind == "how many others":
                assert turn.answer == NUMBERS[len(others)]
            elif question.kind == "is there":
                assert turn.answer == ("yes" if noted else "no")
            elif question.kind == "is there anything":
                assert turn.answer == ("yes" if others else "no")
            elif question.kind == "what attribute":
                assert turn.answer == getattr(scene.objects[subject[0]], question.word)
            elif question.kind == "what is":
                thing = scene.objects[others[0]]
                assert turn.answer.split()[1:] == [thing.colour, thing.shape]
            it = None if after == NUMBERS[0] else places[NUMBERS.index(after) - 1]
            assert it == talk.answer(question, scene, subject[0] if subject else it).referent or (
                question.kind in ("how many", "is there")
            )


def test_a_note_and_its_answer_are_parted():
    assert points.split("one three it zero two") == ("one three it zero", "two")
    assert points.split("it two in the top left") == ("it two", "in the top left")
    assert points.split("a red star") == ("", "a red star")
    assert points.split("one it") == ("one it", "") and points.split("") == ("", "")


def test_a_note_names_looks():
    seen = ["small red star left", "large blue circle", "nothing"]
    assert points.named("two one it zero", seen) == [seen[1], seen[0]]
    # What was not seen is left out, and so is what is no number.
    for text in ("it one", "three it three", "five it five", "zero it zero", "red it red", ""):
        assert points.named(text, seen) == []
