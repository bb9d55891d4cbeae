"""Hidden tokens of human captions: found by hand, from both sides and from the left alone."""

import numpy as np
import torch

from caption import infilling, writer
from caption.data import CaptionData
from loop.checkpoint import open_model


def likeliest(model, tokenizer, saved, data: CaptionData, number: int, seed: int) -> bool:
    """Whether the likeliest token for the hidden place of a caption is the right token."""
    ids = data.tokens[number][0]
    start = int(np.random.default_rng((seed, number, 1)).integers(1, len(ids) - 1))
    features = writer.standardise(data.features_of([number]), saved["statistics"], "cpu")
    condition = model.keys_values(features)
    if saved["objective"] == "ar":
        logits = model(ids[None, :start], condition=condition)[0, start - 1]
    else:
        hidden = ids[None].clone()
        hidden[0, start] = tokenizer.mask
        logits = model(hidden, condition=condition)[0, start]
    return bool(logits.argmax() == ids[start])


@torch.no_grad()
def test_infilling_is_the_likeliest_word_of_each_reading(scene_folder, captioner, captioner_twin):
    data, scores = CaptionData(scene_folder, "val"), []
    for path in (captioner, captioner_twin):
        opened = open_model(path)
        right = [likeliest(*opened, data, number, seed=3) for number in range(len(data))]
        rows = infilling.infilling(*opened, data, seed=3, batch_size=3)
        assert rows[1]["exact"] == rows[1]["token_f1"] == np.mean(right)
        assert set(rows) == {1, 2, 4}
        assert rows[4]["blanks"] == sum(len(captions[0]) >= 6 for captions in data.tokens)
        scores.append([row["token_f1"] for row in rows.values()])
    assert scores[0] != scores[1]  # the model and its twin read different sides
