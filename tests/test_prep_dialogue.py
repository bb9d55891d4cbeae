"""Dialogues on disk: true answers, whole words, done once, continued, refused for other scenes."""

import pytest

import prep_dialogue
from base import files
from base.files import UserError
from base.tokenizer import Tokenizer
from caption import data, dialogue
from tests.making.talked import make_dialogues
from worlds import dialogues, judge, looks, notes, talk
from worlds.scenes import scene_from_dict


def test_every_line_has_a_true_dialogue_and_a_true_caption(dialogue_folder):
    records = data.read_records(dialogue_folder)
    assert {record["split"] for record in records} == {"train", "val", "held_pair", "long"}
    tokenizer = Tokenizer.load(dialogue_folder / "tokenizer.json")
    for record in records:
        scene, turns = scene_from_dict(record["scene"]), record["turns"]
        noted, turns = turns[: looks.LOOKS], turns[looks.LOOKS :]
        assert [turn["question"] for turn in noted] == looks.questions(looks.LOOKS)
        assert [turn["answer"] for turn in noted] == looks.answers(scene)
        questions = [turn["question"] for turn in turns]
        assert dialogues.answers(questions, scene) == [turn["answer"] for turn in turns]
        assert notes.of_dialogue(questions, scene) == [turn["note"] for turn in turns]
        assert len(turns) == dialogues.TURNS
        assert judge.judge(record["captions"][0], scene)["truthful"], record["captions"]
        if record["split"] == "train":
            for turn in noted + turns:  # each word is a token
                for text in (turn["question"], dialogue.slot_text(turn)):
                    assert len(dialogue.encode(text, tokenizer)) == len(text.split())
    for number in talk.NUMBERS:
        assert len(dialogue.encode(number, tokenizer)) == 1


def test_without_looks_and_with_lists(tmp_path):
    """--looks 0 is a folder of questions alone; --lists adds a caption of all objects."""
    wanted = "--looks 0 --lists 2 --no-notes".split()
    folder = make_dialogues(tmp_path / "data", "--encoder", "none", *wanted)
    for record in data.read_records(folder):
        scene = scene_from_dict(record["scene"])
        assert len(record["turns"]) == dialogues.TURNS
        assert not any("note" in turn for turn in record["turns"])
        is_train = record["split"] == "train"
        assert record["captions"][1:] == [looks.listed(scene)] * (2 if is_train else 0)


def test_a_folder_from_before_there_were_looks(tmp_path, capsys):
    """It is a folder of --looks 0; the default is another folder, and the line says why."""
    plain = "--encoder none --looks 0 --no-notes".split()
    folder = make_dialogues(tmp_path / "data", *plain)
    meta = data.read_meta(folder)
    later = ("looks", "lists", "notes", "values_in_notes")
    old = {name: value for name, value in meta.items() if name not in later}
    files.write_sealed(folder / "meta.json", old)
    make_dialogues(folder, *plain)
    assert "all images are there" in capsys.readouterr().err
    with pytest.raises(UserError, match="its looks is 0, not 5"):
        make_dialogues(folder, "--encoder", "none")


def test_a_folder_of_older_notes_is_refused(tmp_path):
    """No flag gives such notes, so the advice names none."""
    folder = make_dialogues(tmp_path / "data", "--encoder", "none")
    meta = data.read_meta(folder)
    old = {name: value for name, value in meta.items() if name != "values_in_notes"}
    files.write_sealed(folder / "meta.json", old)
    with pytest.raises(UserError, match="its values_in_notes is False, not True.*another --out$"):
        make_dialogues(folder, "--encoder", "none")


def test_prep_is_done_once_and_goes_on(dialogue_folder, tmp_path, capsys):
    folder = make_dialogues(tmp_path / "data", "--encoder", "none")
    before = (folder / "captions.jsonl").read_bytes()
    assert before == (dialogue_folder / "captions.jsonl").read_bytes()
    (folder / "meta.json").unlink()
    kept = (folder / "images" / "val" / "000000.png").stat().st_mtime_ns
    make_dialogues(folder, "--encoder", "none")  # as after a kill: nothing is drawn twice
    assert (folder / "captions.jsonl").read_bytes() == before
    assert (folder / "images" / "val" / "000000.png").stat().st_mtime_ns == kept
    make_dialogues(folder, "--encoder", "none")
    assert "all images are there" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"another set of images .* \(its noise is 2, not 1\)"):
        make_dialogues(folder, "--noise", "1")
    with pytest.raises(UserError, match="--num_val 0"):
        prep_dialogue.main(["--out", str(folder), "--num_val", "0"])
