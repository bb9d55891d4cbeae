"""Scores of documents: lengths cost what they tell, the twin's score is its likelihood."""

import numpy as np
import pytest
import torch

from loop import checkpoint
from net import twin
from text import document_scores
from text.data import TextData


def test_length_costs_are_a_distribution():
    costs = document_scores.length_costs([0, 0, 5, 0, 3], 6, 2)
    assert np.exp(-costs[2:]).sum() == pytest.approx(1) and np.isinf(costs[:2]).all()
    assert np.exp(-costs[2]) == pytest.approx(6 / 13)


def test_the_twins_score_is_its_likelihood(text_runs):
    """Documents cut into rows and scored in batches, against each row alone."""
    model, _, saved = checkpoint.open_model(text_runs.twin)
    data = TextData(text_runs.data, "val", 48)
    sums = document_scores.score_documents(model, "ar", data, saved["statistics"], batch_size=5)
    by_hand = np.zeros(data.num_documents)
    for row, document in enumerate(data.documents):
        tokens, _ = data.rows(np.array([row]))
        free = tokens >= 0
        free[:, 0] = False
        by_hand[document] += float(twin.likelihoods(model, tokens, free)[0])
    assert np.allclose(sums.nats, by_hand, rtol=1e-5)
    assert sums.tokens.sum() == (data.lengths - 1).sum() and not sums.length_nats.any()


def test_figures_by_masked_share_add_up_to_all_guesses():
    """A share of exactly 1/4 belongs to the first quarter, and a share of 1 to the last."""
    sums = document_scores.DocumentScores.zeros(1)
    for share in (0.25, 0.26, 1.0):
        estimate = {
            "nats": torch.tensor([2.0]),
            "masked": torch.tensor([4]),
            "cross_entropy": torch.tensor([3.0]),
            "hits": torch.tensor([1]),
            "share": torch.tensor([share], dtype=torch.float64),
        }
        sums.add_estimate(np.array([0]), estimate, draws=3)
    assert sums.by_level[:, 0, 0].tolist() == [4, 4, 0, 4]
    assert (sums.by_level.sum(0) == sums.guesses).all() and sums.nats[0] == pytest.approx(2)


def test_blocks_pay_for_what_they_are_told():
    """Nothing in blocks of one token, the length in a single block, by hand in between."""
    costs = document_scores.length_costs([0, 0, 5, 0, 3], 6, 2)  # counts 6, 1, 4, 1, 1 of 13
    told = {size: document_scores.block_length_costs(costs, size) for size in (1, 2, 4, 6)}
    assert not told[1][2:].any() and np.allclose(told[6][2:], costs[2:])
    # Blocks of 2: the first is full; the second holds one place with 1/7, two with 6/7; of the
    # rows that go on behind it, half end in its first place.
    expected = [0, -np.log(1 / 7), -np.log(6 / 7), -np.log(6 / 7 / 2), -np.log(6 / 7 / 2)]
    assert np.allclose(told[2][2:], expected)
    # Blocks of 4: p(3) as it is, and "at least 4" for what fills the block or goes on.
    assert np.allclose(np.exp(-told[4][2:5]), [6 / 13, 1 / 13, 6 / 13])
