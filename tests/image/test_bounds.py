"""Bounds of a split: by enumeration, the twin step by step, the cost of a length."""

import itertools
import math

import pytest
import torch

from base.files import UserError
from image import bounds
from image.rows import Pairs, rows_of
from tests.making.painted import make_painter, make_pictures
from tests.making.toys import MASK


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return Pairs(make_pictures(tmp_path_factory.mktemp("bounds"), side=2), "val")


def enumerated(model, rows, mask_id: int) -> float:
    """The bound of a single row of three free tokens, over all masks."""
    free = rows["free"][0].nonzero()[:, 0].tolist()
    assert len(free) == 4 and mask_id != MASK
    total = 0.0
    for k in range(1, len(free) + 1):
        for chosen in itertools.combinations(free, k):
            select = torch.zeros_like(rows["free"])
            select[0, list(chosen)] = True
            hidden = rows["tokens"].masked_fill(select, mask_id)
            log_p = model(hidden, words=rows["words"], select=select).log_softmax(-1)
            target = rows["tokens"][0, list(chosen)]
            nats = -log_p.gather(1, target[:, None]).sum().item()
            total += nats / (k * math.comb(len(free), k))
    return total


def test_the_bound_of_a_picture_by_enumeration(pairs):
    model = make_painter(pairs.vocabulary, picture_side=2)
    rows = rows_of(pairs.vocabulary, [pairs.captions[0][0]], pairs.pictures[:1], ["picture"])
    with torch.no_grad():
        expected = enumerated(model, rows, pairs.vocabulary.mask)
    rng = torch.Generator().manual_seed(0)
    found = bounds.row_bounds(model, "diffusion", rows, pairs.vocabulary.mask, 600, rng)
    assert found.item() == pytest.approx(expected, rel=0.03)


def test_the_twin_is_the_product_of_its_steps(pairs):
    model = make_painter(pairs.vocabulary, causal=True, picture_side=2)
    rows = rows_of(pairs.vocabulary, [pairs.captions[0][0]], pairs.pictures[:1], ["both"])
    tokens, total = rows["tokens"], 0.0
    for place in range(1, tokens.shape[1]):
        logits = model(tokens[:, :place], words=rows["words"])[0, -1]
        total -= logits.log_softmax(-1)[tokens[0, place]].item()
    found = bounds.row_bounds(model, "ar", rows, 0, 1, torch.Generator())
    assert found.item() == pytest.approx(total, rel=1e-4)


def test_a_report(pairs, capsys, tmp_path_factory):
    data = make_pictures(tmp_path_factory.mktemp("report"), side=2)
    saved = {"objective": "diffusion", "statistics": {"row_lengths": pairs.histogram()}}
    saved["data"] = {"fingerprint": data.fingerprint}
    model = make_painter(pairs.vocabulary, picture_side=2)
    options = bounds.ImageScoring(data_dir=str(data.folder), splits="val", draws=2)
    result = bounds.score((model, None, saved), options, 0)
    figures = result["splits"]["val"]
    assert list(figures) == ["picture", "words", "both"]
    low, high = figures["picture"]["nats_per_token_ci95"]
    assert low <= figures["picture"]["nats_per_token"] <= high
    assert "p(words, picture)" in capsys.readouterr().out
    with pytest.raises(UserError, match="was trained on"):
        bounds.open_data(str(data.folder), {"data": {"fingerprint": "other"}})
    control = saved | {"flags": {"directions": "to_words"}}
    assert bounds.ways_of(control) == ["words", "words_alone"]
    assert bounds.ways_of(saved | {"objective": "ar"}) == ["picture", "words_alone", "both"]
