"""Fillings: blanks whose text is known, and how far continuations of one prompt differ."""

import numpy as np
import pytest

from base.config import SampleConfig
from loop.checkpoint import open_model
from text import fillings
from text.pair_bounds import Reader
from text.pairs import PairData


@pytest.fixture(scope="module")
def held_out(conditional_world):
    return PairData(conditional_world / "pairs", "val", "context")


def test_a_span_lies_inside_its_document(held_out):
    wanted = fillings.spans(held_out, list(range(len(held_out))), 3, seed=1)
    assert wanted
    for pair in wanted:
        document = held_out.pair(pair.document).whole()  # spans number their pairs, not documents
        assert pair.whole().tolist() == document.tolist()
        assert [len(blank) for blank in pair.blanks] == [3]
        assert len(pair.given[0]) >= 2 and len(pair.given[1]) >= 1
    again = fillings.spans(held_out, [wanted[0].document], 3, seed=1)
    assert again[0].whole().tolist() == wanted[0].whole().tolist()
    assert not fillings.spans(held_out, [0], 1000, seed=1)


@pytest.mark.parametrize("form", ["cross", "ar"])
def test_a_filled_span_has_its_length_and_no_neighbours(conditional_world, held_out, form):
    model, tokenizer, saved = open_model(conditional_world / form / "best.pt")
    reader, settings = Reader.of(model, saved), SampleConfig(sampler="confidence", temperature=0.0)
    wanted = fillings.spans(held_out, list(range(6)), 2, seed=0)
    together = fillings.fill_spans(reader, tokenizer, wanted, settings, seed=0)
    assert [len(ids) for ids in together] == [2] * len(wanted)
    alone = [fillings.fill_spans(reader, tokenizer, [pair], settings, 0)[0] for pair in wanted]
    assert together == alone  # temperature 0 draws nothing


def test_variety_of_continuations():
    same = [np.array([1, 2, 3]), np.array([1, 2, 3])]
    apart = [np.array([1, 2, 3]), np.array([4, 5, 6])]
    figures = fillings.variety([same, apart])
    assert figures["identical"] == 0.5 and figures["overlap"] == 0.5
    assert figures["distinct_1"] == pytest.approx((0.5 + 1) / 2)
    low, high = figures["overlap_ci95"]
    assert low <= 0.5 <= high


def test_a_training_document_is_a_copy_of_itself(conditional_world):
    train = PairData(conditional_world / "pairs", "train", "context")
    document = train.tokens[train.offsets[0] : train.offsets[1]].tolist()
    rates = fillings.copy_rates({"copied": [document], "own": [[5] * 20]}, train)
    assert rates["copied"]["longest_copy_max"] == len(document)
    assert rates["own"]["longest_copy_max"] < 20
