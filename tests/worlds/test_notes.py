"""Notes before answers: by hand, and so that the answers follow from them."""

import pytest

from worlds import dialogues, looks, notes, talk
from worlds.scenes import Object, Scene
from worlds.talk import NUMBERS

# From left to right: a red star above, a blue circle, a red square below it.
SQUARE = Object("square", "red", "medium", "solid", 0.8, 0.8, 0.12)
STAR = Object("star", "red", "small", "solid", 0.2, 0.2, 0.08)
CIRCLE = Object("circle", "blue", "medium", "solid", 0.75, 0.2, 0.12)
SCENE = Scene([SQUARE, STAR, CIRCLE])


def test_notes_by_hand():
    asked = {
        "how many red shapes are there ?": "any one no three no no it zero",
        "is there a green shape ?": "any no no no no no it zero",
        "is there a blue shape ?": "any no two no no no it two",
        "what shape is it ?": "any no two no no no it two",
        "how many others have its size ?": "medium no no three no no it two",
        "is there anything left of it ?": "any one no no no no it two",
        "what is below it ?": "any no no three no no it three",
        "is it above the circle ?": "any no two no no no it three",
        "and its fill ?": "any no no three no no it three",
        "where is the star ?": "any one no no no no it one",
        "how many solid shapes are there ?": "any one two three no no it one",
    }
    assert notes.of_dialogue(list(asked), SCENE) == list(asked.values())


def test_notes_of_questions_without_an_answer():
    with pytest.raises(ValueError, match="no answer"):
        notes.of_dialogue(["what colour is it ?"], SCENE)
    with pytest.raises(talk.Unread):
        notes.of_dialogue(["what ?"], SCENE)


@pytest.mark.parametrize("split", dialogues.SPLITS)
def test_answers_follow_from_notes(split):
    """Counts are the numbers of objects that are noted; "it" is the object that the oracle means."""
    for number in range(6):
        scene, turns = dialogues.sample(split, number, seed=1)
        found = notes.of_dialogue([turn.question for turn in turns], scene)
        order = looks.in_order(scene)
        it = None
        for turn, note in zip(turns, found, strict=True):
            value, *words, it_word, after = note.split()
            assert it_word == notes.IT and len(words) == looks.LOOKS
            numbers = [place for place, word in enumerate(words, 1) if word != notes.NOT]
            assert all(words[place - 1] == NUMBERS[place] for place in numbers)
            noted = [order[place - 1] for place in numbers]
            question = talk.read(turn.question)
            oracle, subject = talk.answer(question, scene, it), None
            if question.kind not in ("how many", "is there"):
                subject = talk.alone(question.noun, scene, it)
            if question.kind == "how many others":
                others = [scene.objects[index] for index in noted]
                assert value == getattr(scene.objects[subject], question.word)
                assert all(getattr(thing, question.word) == value for thing in others)
            else:
                assert value == notes.ANY
            it = None if after == NUMBERS[0] else order[NUMBERS.index(after) - 1]
            assert it == oracle.referent and turn.answer == oracle.text
            if question.kind in ("how many", "how many others"):
                assert turn.answer == NUMBERS[len(noted)]
            elif question.kind in ("is there", "is there anything"):
                assert turn.answer == ("yes" if noted else "no")
            elif question.kind == "what is":
                thing = scene.objects[noted[0]]
                assert noted == [it] and turn.answer.split()[1:] == [thing.colour, thing.shape]
            elif question.kind == "is it":
                assert noted == talk.fitting(question.other, scene) and it == subject
            else:
                assert noted == [it] == [subject]
                if question.kind == "what attribute":
                    assert turn.answer == getattr(scene.objects[it], question.word)


def test_a_note_and_its_answer_are_parted():
    assert notes.split("red one no three it zero two") == ("red one no three it zero", "two")
    assert notes.split("it two in the top left") == ("it two", "in the top left")
    assert notes.split("a red star") == ("", "a red star")
    assert notes.split("one it") == ("one it", "") and notes.split("") == ("", "")


def test_notes_with_a_value_and_without():
    assert notes.begins_with_value("any no two no no no it two")
    assert notes.begins_with_value("red one no no no no it two")
    for text in ("no two no no no it two", "it two", "", "red"):
        assert not notes.begins_with_value(text)


def test_a_note_names_looks():
    seen = ["small red star left", "large blue circle", "nothing"]
    assert notes.named("one two no no no it zero", seen) == seen[:2]
    assert notes.named("no two no no no it one", seen) == seen[:2]
    assert notes.named("any no two no no no it one", seen) == seen[:2]
    assert notes.named("red one no no no no it two", seen) == seen[:2]
    assert notes.named("no no no no no it two", seen) == seen[1:2]
    # What was not seen is left out, and so is what is no number.
    for text in ("three it three", "five it five", "zero it zero", "no it red", ""):
        assert notes.named(text, seen) == []
