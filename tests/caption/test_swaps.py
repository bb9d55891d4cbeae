"""Winoground's scores on swapped pairs: counted by hand, and the same for any tokenizer of the data."""

import shutil

import numpy as np

from base.tokenizer import Tokenizer
from caption import data, swaps
from caption.data import CaptionData
from loop import checkpoint
from tests.making.captioned import by_hand


def test_scores_by_hand(scene_folder, captioner, monkeypatch):
    """Four pairs: all right, right captions only, right images only, all wrong."""
    # By (image, caption): the bound of each pair. Lower is preferred.
    nats = {
        (0, 0): [1, 1, 4, 9],
        (0, 1): [2, 2, 3, 1],
        (1, 0): [2, 0, 5, 1],
        (1, 1): [1, -1, 1, 9],
    }
    cells = iter(nats.values())
    monkeypatch.setattr(swaps.writer, "bounds", lambda *_, **__: np.array(next(cells)))
    swap = CaptionData(scene_folder, "swap")
    figures = swaps.swap_scores(*checkpoint.open_model(captioner), swap)
    assert (figures["pairs"], figures["text"], figures["image"]) == (4, 0.5, 0.5)
    assert figures["group"] == 0.25
    low, high = figures["group_ci95"]
    assert 0 <= low < 0.25 < high <= 1


def test_other_tokens_for_the_same_captions_change_no_score(scene_folder, captioner, tmp_path):
    model, tokenizer, saved = checkpoint.open_model(captioner)
    records = data.read_records(scene_folder)
    trained = Tokenizer.train(["a blue heart"], 270)
    other = by_hand(tmp_path / "other", records, trained, patches=64, width=192)
    shutil.copy(scene_folder / "features.npy", other / "features.npy")
    scores = []
    for folder in (scene_folder, other):
        swap = CaptionData(folder, "swap")
        scores.append(swaps.swap_scores(model, tokenizer, saved, swap, draws=4))
    assert scores[0] == scores[1]
