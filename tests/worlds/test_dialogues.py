"""Dialogues: an oracle answers all of them, and neither words nor scene alone give the answers."""

from collections import Counter, defaultdict
from functools import cache

import numpy as np

from worlds import dialogues, scenes, talk
from worlds.dialogues import Turn
from worlds.scenes import Object, Scene

COUNT = 40  # dialogues of each split


@cache
def drawn() -> list[tuple[str, Scene, list[Turn]]]:
    """Dialogues of every split."""
    found = []
    for split in dialogues.SPLITS:
        for number in range(COUNT):
            found.append((split, *dialogues.sample(split, number, seed=0, noise=2)))
    return found


def every_turn() -> list[tuple[Scene, Turn]]:
    return [(scene, turn) for _, scene, turns in drawn() for turn in turns]


def test_the_oracle_gives_the_written_answers():
    for _, scene, turns in drawn():
        questions = [turn.question for turn in turns]
        assert dialogues.answers(questions, scene) == [turn.answer for turn in turns]


def test_it_always_needs_the_history():
    """Another referent would change the answer, and the distance is that of its last name."""
    pronouns = 0
    for _, scene, turns in drawn():
        referent, named_at = None, 0
        for number, turn in enumerate(turns):
            question = talk.read(turn.question)
            if question.has_pronoun:
                pronouns += 1
                assert turn.distance == number - named_at <= dialogues.FARTHEST
                others = set(range(len(scene.objects))) - {referent}
                texts = {talk.answer(question, scene, other) for other in others} - {None}
                assert any(found.text != turn.answer for found in texts)
            referent = talk.answer(question, scene, referent).referent
            noun = question.noun
            by_noun = noun is not None and talk.fitting(noun, scene) == [referent]
            if by_noun or question.kind == "what is":
                named_at = number
    assert pronouns > COUNT


def test_nothing_is_asked_twice():
    for _, scene, turns in drawn():
        referent, asked = None, set()
        for turn in turns:
            question = talk.read(turn.question)
            subject = talk.alone(question.noun, scene, referent)
            meant = question.noun if subject is None else subject
            other = talk.alone(question.other, scene, None)
            assert (question.kind, meant, question.word, other) not in asked
            asked.add((question.kind, meant, question.word, other))
            referent = talk.answer(question, scene, referent).referent


def test_the_words_of_a_question_tell_little():
    """The most frequent answer to each form of question is right in less than half of the cases."""
    answers = defaultdict(Counter)
    for _, turn in every_turn():
        question = talk.read(turn.question)
        answers[question.kind, question.word if question.kind == "what attribute" else ""][
            turn.answer
        ] += 1
    most = sum(counter.most_common(1)[0][1] for counter in answers.values())
    assert most / len(every_turn()) < 0.5


def test_splits_hold_what_they_promise():
    for split, scene, turns in drawn():
        pairs = [scenes.held_pair(thing.colour, thing.shape) for thing in scene.objects]
        assert any(pairs) == (split == "held_pair")
        assert len(scene.objects) == 5 if split == "long" else 2 <= len(scene.objects) <= 4
        assert len(turns) == dialogues.TURNS


def test_a_dialogue_is_a_function_of_its_number():
    assert dialogues.sample("val", 3, seed=1) == dialogues.sample("val", 3, seed=1)
    assert dialogues.sample("val", 3, seed=1) != dialogues.sample("val", 4, seed=1)
    rng = np.random.default_rng(0)
    scene = scenes.sample_scene(rng, 1)
    # A single object leaves little to ask, and no "it" that needs a referent.
    assert all(turn.distance == 0 for turn in dialogues.converse(scene, rng))


def test_an_open_question_has_no_answer_and_keeps_the_referent():
    star = Object("star", "red", "small", "solid", x=0.2)
    heart = Object("heart", "blue", "large", "solid", x=0.7)
    questions = ["where is the star ?", "where is the green star ?", "what colour is it ?"]
    assert dialogues.answers(questions, Scene([star, heart])) == ["on the left", None, "red"]
