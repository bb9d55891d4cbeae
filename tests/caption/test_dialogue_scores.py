"""Scores of answers: closed forms of the figures, and what a model sees in each condition."""

import numpy as np
import pytest

from base.config import CAPTIONS, SampleConfig
from base.files import UserError
from caption import dialogue_scores
from caption.dialogue_scores import (
    Answered,
    Questions,
    figures,
    noted_figures,
    open_questions,
    share,
    split_figures,
)
from caption.dialogue_writer import Answer, answer_all, look_all
from loop import checkpoint
from tests.making.talked import make_dialogues
from worlds import dialogues, looks, notes
from worlds.scenes import scene_from_dict

GREEDY = SampleConfig(**CAPTIONS)


@pytest.fixture(scope="module")
def questions(dialogue_folder, answerer) -> Questions:
    return open_questions(checkpoint.open_model(answerer), str(dialogue_folder), "val", GREEDY, 0)


def turn(family, distance, question="?"):
    return {"question": question, "answer": "yes", "family": family, "distance": distance}


def test_figures_count_what_was_asked():
    """Two dialogues of three turns; one question is open."""
    turns = [[turn("count", 0), turn("exist", 1), turn("place", 5)]] * 2
    truths = [["one", "yes", "on the left"], ["two", None, "on the left"]]
    answers = [["one", "yes", "on the left"], ["two", "yes", "on the right"]]
    result = figures(Answered(answers, truths, 1.5), turns)
    assert (result["questions"], result["accuracy"]) == (5, 4 / 5) and "all_right" not in result
    asked = {name: (it["questions"], it.get("accuracy")) for name, it in result["families"].items()}
    assert asked["count"] == (2, 1.0) and asked["exist"] == (1, 1.0) and asked["place"] == (2, 0.5)
    assert asked["relation"] == (0, None)
    assert [result["distances"][name]["questions"] for name in ("0", "1", "4-6")] == [2, 1, 2]
    assert [it["questions"] for it in result["rounds"].values()] == [2, 1, 2]
    truths[1][1] = "no"
    result = figures(Answered(answers, truths, 1.5), turns)
    assert result["all_right"] == 0.5 and result["accuracy"] == 4 / 6


def test_contradictory_dialogues_are_counted():
    """The second dialogue says that there is no circle, and that there are two."""
    asked = [
        turn("exist", 0, "is there a circle ?"),
        turn("count", 0, "how many circles are there ?"),
    ]
    answers = [["yes", "two"], ["no", "two"], ["no", "zero"], ["yes", "one"]]
    result = figures(Answered(answers, answers, 1.0), [asked] * 4)
    assert result["contradictions"] == 0.25 and result["accuracy"] == 1.0


def test_intervals_are_over_dialogues():
    """Ten dialogues whose questions are all right or all wrong are ten observations, not fifty."""
    right = np.repeat(np.arange(10) < 5, 5).reshape(10, 5)
    low, high = share(right, np.ones_like(right))["accuracy_ci95"]
    mixed = np.tile(np.arange(5) < 2.5, (10, 1)) ^ (np.arange(10)[:, None] % 2 == 1)
    near, far = share(mixed, np.ones_like(mixed))["accuracy_ci95"]
    assert high - low > 0.5 > 0.2 > far - near
    assert share(np.ones((4, 5), bool), np.ones((4, 5), bool))["accuracy_ci95"][0] < 0.9


def test_each_question_alone_is_a_dialogue_of_a_turn(questions):
    alone = questions.alone("").answers
    for number, turn in ((0, 0), (2, 9)):
        features = questions.features([number])
        asked = [[questions.asked[number][turn]]]
        (same,) = answer_all(questions.answerer, features, asked, GREEDY)
        assert same[0].text == alone[number][turn]


def test_another_picture_is_judged_on_its_own_scene(questions):
    swapped, changed = questions.other_picture("")
    count = len(questions.data)
    for number in range(count):
        scene = scene_from_dict(questions.data.records[(number + 1) % count]["scene"])
        found = dialogues.answers(questions.asked[number], scene)
        assert swapped.truths[number] == found
        for new, old, differs in zip(
            found, questions.truths[number], changed.truths[number], strict=True
        ):
            assert differs == (None if new == old else new)
    assert any(None in row for row in swapped.truths)  # else nothing was left out
    assert any(it for row in changed.truths for it in row)


def test_looks_are_scored_apart(questions, answerer):
    """The share of right looks by hand. A folder without looks is not this model's."""
    count = questions.data.looks
    assert count == looks.LOOKS and all(len(row) == dialogues.TURNS for row in questions.asked)
    numbers = np.arange(len(questions.data))
    noted = look_all(questions.answerer, questions.features(numbers), GREEDY)
    truths = [[turn["answer"] for turn in turns[:count]] for turns in questions.data.turns]
    right = [
        [said.text == true for said, true in zip(*row, strict=True)]
        for row in zip(noted, truths, strict=True)
    ]
    figure = questions.looked("")
    assert figure["questions"] == count * len(numbers)
    assert figure["accuracy"] == np.mean(right)
    assert figure["all_right"] == np.mean([all(row) for row in right])
    model, tokenizer, saved = checkpoint.open_model(answerer)
    saved["statistics"]["looks"] = 0
    with pytest.raises(UserError, match="with 5 looks .* expected 0 looks"):
        open_questions((model, tokenizer, saved), questions.data.folder, "val", GREEDY, 0)


def test_notes_are_scored_apart(questions, answerer, tmp_path, monkeypatch):
    """The share of right notes by hand. A folder without notes is not this model's."""
    truths = [[turn["note"] for turn in row] for row in questions.turns]
    own = questions.answer("")
    right = [
        [note == true for note, true in zip(*row, strict=True)]
        for row in zip(own.notes, truths, strict=True)
    ]
    figure = split_figures(questions, "val")["notes"]
    assert figure["questions"] == len(truths) * dialogues.TURNS
    assert figure["accuracy"] == np.mean(right) and figure["calls"] == own.calls
    assert noted_figures(truths, truths, 1.0)["all_right"] == 1.0
    folder = make_dialogues(tmp_path / "plain", "--no-notes")
    opened = checkpoint.open_model(answerer)
    with pytest.raises(UserError, match="without notes before the answers"):
        open_questions(opened, folder, "val", GREEDY, 0)
    # A model of another form of notes, and a folder of another form.
    opened[2]["statistics"]["values_in_notes"] = False
    with pytest.raises(
        UserError, match="with notes that begin with a value; expected notes without"
    ):
        open_questions(opened, questions.data.folder, "val", GREEDY, 0)
    opened[2]["statistics"]["values_in_notes"] = True
    make = notes.of_dialogue

    def older(asked, scene):
        return [note.split(" ", 1)[1] for note in make(asked, scene)]

    monkeypatch.setattr(notes, "of_dialogue", older)
    old = make_dialogues(tmp_path / "old")
    with pytest.raises(UserError, match="with notes without a value; expected notes that begin"):
        open_questions(opened, old, "val", GREEDY, 0)
    # A model without notes reads both folders.
    opened[2]["statistics"]["notes"] = False
    for data_dir in (questions.data.folder, folder):
        assert not open_questions(opened, data_dir, "val", GREEDY, 0).data.notes


def test_what_each_condition_shows(questions, monkeypatch):
    """A stand-in for the model: it answers truly, and notes what it was shown."""
    seen = {}

    def noted(answerer, features, asked, settings, *, history=None, seed=0, first=0):
        seen["history"], seen["blind"] = history, not features.any()
        truths = {tuple(a): t for a, t in zip(questions.asked, questions.truths, strict=True)}
        by_question = {q: a for row in questions.said for q, a in row}
        written = [truths.get(tuple(row)) or [by_question[q] for q in row] for row in asked]
        return [[Answer([], text, [], 1) for text in row] for row in written]

    monkeypatch.setattr(dialogue_scores, "answer_all", noted)
    both = dialogue_scores.split_figures(questions, "val")
    assert seen["history"] == questions.said and not seen["blind"]
    assert both["own"]["accuracy"] == both["true"]["accuracy"] == both["own"]["all_right"] == 1.0
    questions.answer("", blind=True)
    assert seen == {"history": None, "blind": True}
    controls = dialogue_scores.control_figures(questions)
    assert list(controls) == [
        "no picture",
        "no history",
        "other history",
        "other picture",
        "where it changes",
    ]
    # It answers for the own picture, so it is never right where the other picture changes that.
    assert controls["where it changes"]["accuracy"] == 0.0 < controls["other picture"]["accuracy"]
