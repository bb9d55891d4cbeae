"""Bounds of pairs: another condition, what the length of a blank costs, what the left reader sees."""

import numpy as np
import pytest
import torch

from loop.checkpoint import open_model
from net import twin
from text import pair_bounds
from text.forms import Pair, arrange
from text.pairs import PairData


@pytest.fixture(scope="module")
def pairs(conditional_world):
    """All held-out pairs."""
    data = PairData(conditional_world / "pairs", "val", "context")
    return [data.pair(number) for number in range(len(data))]


def test_another_condition_is_another_documents(conditional_world, pairs):
    tokenizer = open_model(conditional_world / "ar" / "best.pt")[1]
    swapped = pair_bounds.with_another_condition(pairs)
    assert sum(other is not None for other in swapped) > len(pairs) / 2
    for pair, other in zip(pairs, swapped, strict=True):
        if other is None:
            continue
        assert other.blanks is pair.blanks and other.kind == pair.kind
        assert sum(map(len, other.given)) <= sum(map(len, pair.given))
        source = next(candidate for candidate in pairs if candidate.given is other.given)
        assert source.document != pair.document
        assert len(arrange(other, "ar", tokenizer).ids) <= 96  # it fits the model's rows


def test_lengths_of_blanks_are_distributions(conditional_world):
    saved = open_model(conditional_world / "cross" / "best.pt")[2]
    costs = pair_bounds.blank_costs(saved["statistics"], 96)
    assert set(costs) == {"continue", "middle", "blanks"}
    for cost in costs.values():
        assert np.exp(-cost).sum() == pytest.approx(1.0)
        assert np.isinf(cost[0])  # no blank is empty


def test_the_left_reader_sees_no_ending(conditional_world, pairs):
    judge, tokenizer, _ = open_model(conditional_world / "twin" / "best.pt")
    left = pair_bounds.LeftReader(judge)
    pair = next(pair for pair in pairs if pair.kind == "continue")
    plain = torch.from_numpy(pair.whole())[None]
    free = torch.arange(plain.shape[1])[None] >= len(pair.given[0])
    exact = float(twin.likelihoods(judge, plain, free)[0])
    assert left.nats(tokenizer, pair) == pytest.approx(exact)
    middle = next(pair for pair in pairs if pair.kind == "middle")
    other = Pair([middle.given[0], middle.given[1][::-1].copy()], middle.blanks, "middle")
    assert left.nats(tokenizer, other) == pytest.approx(left.nats(tokenizer, middle))


def test_sums_over_documents(pairs):
    documents = pair_bounds.documents_of(pairs)
    counts = pair_bounds.by_document(pairs, np.ones(len(pairs)), documents)
    assert counts.sum() == len(pairs) and (counts >= 1).all()
    assert (np.diff(documents) > 0).all()
