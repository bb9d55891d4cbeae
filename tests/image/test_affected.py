"""Places that a change affects: equal words change nothing, and the fall of tokens decides."""

import pytest
import torch

from image import affected
from image.rows import Pairs
from tests.making.painted import make_painter, make_pictures


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return Pairs(make_pictures(tmp_path_factory.mktemp("affected")), "val")


def test_equal_words_change_nothing(pairs):
    model, words = make_painter(pairs.vocabulary), [captions[0] for captions in pairs.captions]
    same = affected.fall(model, pairs.vocabulary, pairs.pictures[0], words[0], words[0])
    assert same.abs().max() == 0
    other = affected.fall(model, pairs.vocabulary, pairs.pictures[0], words[0], words[1])
    back = affected.fall(model, pairs.vocabulary, pairs.pictures[0], words[1], words[0])
    assert torch.allclose(other, -back, atol=1e-5) and other.abs().max() > 0.01


def test_affected_places():
    score = torch.zeros(6, 6)
    score[1:3, 1:3] = 9.0
    found = affected.places(score.flatten(), 6, 2.0, None, grow=0).view(6, 6)
    assert found[1:3, 1:3].all() and not found[4:].any()
    wider = affected.places(score.flatten(), 6, 2.0, None, grow=1).view(6, 6)
    assert wider[found].all() and wider.sum() > found.sum()
    assert affected.places(score.flatten(), 6, 99.0, None, grow=0).any()  # at least one place
    assert affected.places(score.flatten(), 6, 0.0, 4 / 36, grow=0).sum() == 4
