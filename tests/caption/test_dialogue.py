"""Rows of dialogues: slots, blocks, batches as functions of (seed, step); folders that are wrong."""

import json

import numpy as np
import pytest
import torch

from base.files import UserError
from caption import dialogue
from caption.dialogue import DialogueBatches, DialogueData
from tests.making.captioned import by_hand
from worlds import looks

TURNS = [
    {"question": "is there a star ?", "answer": "no", "family": "exist", "distance": 0},
    {"question": "where is it ?", "answer": "in the top left", "family": "place", "distance": 1},
]


def record(split="train", turns=TURNS):
    return {"image": "a.png", "split": split, "captions": ["a red star"], "turns": turns}


def test_a_row_is_questions_and_slots(dialogue_folder):
    data = DialogueData(dialogue_folder, "val", slot=13)
    batch, tokenizer = data.dialogues([2, 0]), data.tokenizer
    for row, number in enumerate([2, 0]):
        tokens, turn, free = (batch[name][row] for name in ("tokens", "turn", "free"))
        assert tokens[0] == tokenizer.bos and turn[0] == 0 and not free[0]
        for index, said in enumerate(data.turns[number]):
            here = turn == index
            assert int((here & free).sum()) == 13 and (free[here].long().diff() >= 0).all()
            slot = tokens[here & free].tolist()
            in_slot = [said["note"], said["answer"]] if "note" in said else [said["answer"]]
            assert dialogue.answer_text(slot, tokenizer) == " ".join(in_slot)
            assert ("note" in said) == (index >= data.looks)
            words = slot.index(tokenizer.eos)
            assert slot[words:] == [tokenizer.eos] * (13 - words)
            question = tokens[here & ~free].tolist()[index == 0 :]
            assert tokenizer.decode(question) == " " + said["question"]
        padding = torch.arange(len(tokens)) >= batch["lengths"][row]
        assert ((turn == -1) == padding).all() and (tokens[padding] == tokenizer.pad).all()
    assert batch["weight"] == 2 * data.num_turns * 13


def test_notes_may_be_left_out(dialogue_folder):
    """A model from before there were notes reads a folder with them."""
    plain = DialogueData(dialogue_folder, "val", slot=8, notes=False)
    assert not plain.notes and plain.slot == 8
    tokens, free = plain.tokens_of[0], plain.free_of[0]
    last = dialogue.answer_text(tokens[free][-8:], plain.tokenizer)
    assert last == plain.turns[0][-1]["answer"]
    noted = DialogueData(dialogue_folder, "train")
    longest = max(len(dialogue.slot_text(turn).split()) for turn in noted.every_turn())
    assert noted.notes and noted.slot == 1 + longest


def test_batches_are_functions_of_the_step(dialogue_folder):
    """Each epoch shows every dialogue once; micro-batches share the noise levels of the step."""
    data = DialogueData(dialogue_folder, "train")
    whole, parts = DialogueBatches(data, 4, 1, seed=3), DialogueBatches(data, 4, 2, seed=3)
    late = DialogueBatches(data, 4, 1, seed=3)(5)[0]
    seen = [whole(step)[0] for step in range(6)]
    assert torch.equal(seen[5]["tokens"], late["tokens"])
    assert torch.equal(seen[5]["uniform"], late["uniform"])
    first = torch.cat([batch["features"] for batch in seen[:3]]).flatten(1)
    assert len(first.unique(dim=0)) == 12
    levels = torch.cat([batch["uniform"] for batch in parts(1)])
    assert torch.equal(levels, seen[1]["uniform"])
    strata = (levels.flatten().sort().values * levels.numel()).floor()
    assert strata.tolist() == list(range(levels.numel()))


def test_slots_are_as_long_as_the_longest_answer(tmp_path):
    folder = by_hand(tmp_path / "data", [record(), record("val")])
    data = DialogueData(folder, "train")
    longest = len(dialogue.encode("in the top left", data.tokenizer))
    assert data.slot == longest + 1
    assert data.fit(data.max_length).sizes.max() <= data.max_length
    with pytest.raises(UserError, match="at most 9, the model's max_length"):
        data.fit(9)
    with pytest.raises(UserError, match="an answer of .* at most 1 tokens"):
        DialogueData(folder, "val", slot=2)


@pytest.mark.parametrize(
    "turns",
    [None, [], "yes", [{"question": "is there a star ?"}], [{**TURNS[0], "distance": "near"}]],
)
def test_a_folder_without_dialogues_is_refused(tmp_path, turns):
    folder = by_hand(tmp_path / "data", [record(), record(turns=turns)])
    with pytest.raises(UserError, match="without dialogues"):
        DialogueData(folder, "train")
    by_hand(tmp_path / "other", [record(), record(turns=TURNS[:1])])
    with pytest.raises(UserError, match="several lengths"):
        DialogueData(tmp_path / "other", "train")


def test_looks_stand_before_the_questions(tmp_path, dialogue_folder):
    assert DialogueData(dialogue_folder, "val").looks == looks.LOOKS
    noted = [{**TURNS[0], "family": "look"}] * 2
    for turns, count in ((TURNS, 0), (noted + TURNS, 2)):
        records = [record(turns=turns), record("val", turns)]
        folder = by_hand(tmp_path / str(count), records)
        assert DialogueData(folder, "train").looks == count
    for number, turns in enumerate((TURNS + noted, noted + noted, noted[:1] + TURNS + noted[:1])):
        records = [record(turns=noted + TURNS), record(turns=turns)]
        folder = by_hand(tmp_path / f"wrong {number}", records)
        with pytest.raises(UserError, match="equally many looks before each dialogue's questions"):
            DialogueData(folder, "train")


def test_lines_of_a_folder_are_the_turns_of_the_world(dialogue_folder):
    """What is on disk is plain JSON, and a row number is the number of its features."""
    lines = (dialogue_folder / "captions.jsonl").read_text().splitlines()
    data = DialogueData(dialogue_folder, "long")
    assert [json.loads(lines[row])["turns"] for row in data.rows] == data.turns
    assert np.allclose(data.dialogues([1])["features"], data.features_of([1]))


def test_some_dialogues_learn_their_questions(dialogue_folder):
    """All tokens of a turn are free then, [BOS] and padding never; the weight counts them."""
    data = DialogueData(dialogue_folder, "train")
    batch = DialogueBatches(data, 4, 1, seed=3, question_share=1.0)(0)[0]
    expected = (batch["tokens"] != data.tokenizer.pad) & (batch["tokens"] != data.tokenizer.bos)
    assert torch.equal(batch["free"], expected)
    assert batch["weight"] == batch["free"].sum()
    answers = DialogueBatches(data, 4, 1, seed=3)(0)[0]
    assert torch.equal(answers["tokens"], batch["tokens"])
    assert not (answers["free"] & ~batch["free"]).any()
    half = DialogueBatches(data, 4, 1, seed=3, question_share=0.5)(0)[0]["free"]
    learns = (half == expected).all(1)
    assert torch.equal(half[~learns], answers["free"][~learns]) and 0 < learns.sum() < 4
