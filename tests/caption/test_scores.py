"""Scores of a captioner: its splits, foreign features, batches and a blind run."""

import pytest

import evaluate
from base.config import SampleConfig
from base.files import UserError
from base.tokenizer import Tokenizer
from caption import data, scores
from caption.data import CaptionData
from loop.checkpoint import open_model
from tests.making.captioned import by_hand

GREEDY = SampleConfig(sampler="confidence", steps=4, temperature=0.0)


def test_data_of_another_encoder_is_refused(scene_folder, captioner, tmp_path):
    other = tmp_path / "other"
    trained = Tokenizer.train(["a blue heart"], 270)
    records = data.read_records(scene_folder)
    by_hand(other, records, trained, key="0" * 16, patches=64, width=192)
    words = ["--checkpoint", str(captioner), "--data_dir", str(other), "--splits", "val"]
    with pytest.raises(UserError, match="0000000000000000"):
        evaluate.main([*words, "--step_counts", "1"])


def test_splits_are_all_but_train(scene_folder):
    options = scores.CaptionScoring(data_dir=str(scene_folder))
    splits = scores.splits_of(options)
    assert splits[0] == "val" and "train" not in splits and "swap" in splits
    options.splits = "swap,val"
    assert scores.splits_of(options) == ["swap", "val"]
    for wrong in ("train", "valid"):
        options.splits = wrong
        with pytest.raises(UserError, match=f"--splits {wrong}"):
            scores.splits_of(options)


def test_batches_change_no_caption_and_a_blind_model_repeats_itself(scene_folder, captioner):
    opened, val = open_model(captioner), CaptionData(scene_folder, "val")
    settings = SampleConfig(sampler="first_hitting", steps=4)
    together = scores.caption_all(opened, val, settings, seed=2, batch_size=8)
    assert together == scores.caption_all(opened, val, settings, seed=2, batch_size=3)
    blind, calls = scores.caption_all(opened, val, GREEDY, blind=True)
    assert len(set(blind)) == 1 and 1 <= calls <= GREEDY.steps
