"""Scores of text: every estimator has the same mean, a file scores like its folder, lengths cost."""

import numpy as np
import pytest
import torch

from base.files import UserError
from loop import checkpoint
from net import twin
from tests.making.scored import scored
from text import scores
from text.data import TextData


def test_estimators_agree_and_the_seed_decides(text_runs, tmp_path):
    """Every schedule estimates the same bound."""
    count, again, linear, cosine = (
        scored(
            text_runs.denoiser, text_runs.data, tmp_path, "--draws", 64, "--estimator", estimator
        )["nats_per_token"]
        for estimator in ("count", "count", "linear", "cosine")
    )
    assert count == again
    assert linear == pytest.approx(count, rel=0.03) and cosine == pytest.approx(count, rel=0.03)


def test_a_text_file_scores_like_its_data_folder(text_runs, tmp_path):
    data = TextData(text_runs.data, "val", 48)
    texts = []
    for start, end in zip(data.offsets[:-1], data.offsets[1:], strict=True):
        texts.append(data.tokenizer.decode(data.tokens[start:end]))
    path = tmp_path / "text.txt"
    path.write_text("\n===\n".join(texts))
    words = ("--text", path, "--separator", "===")
    folder = scored(text_runs.twin, text_runs.data, tmp_path)
    assert scored(text_runs.twin, text_runs.data, tmp_path, *words) == folder
    path.write_text(" ")
    with pytest.raises(UserError, match="no text in"):
        scored(text_runs.denoiser, text_runs.data, tmp_path, "--text", path)


def test_length_costs_are_a_distribution():
    costs = scores.length_costs([0, 0, 5, 0, 3], 6, 2)
    assert np.exp(-costs[2:]).sum() == pytest.approx(1) and np.isinf(costs[:2]).all()
    assert np.exp(-costs[2]) == pytest.approx(6 / 13)


def test_the_twins_score_is_its_likelihood(text_runs):
    """Documents cut into rows and scored in batches, against each row alone."""
    model, _, saved = checkpoint.open_model(text_runs.twin)
    data = TextData(text_runs.data, "val", 48)
    sums = scores.score_documents(model, "ar", data, saved["statistics"], batch_size=5)
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
    sums = scores.DocumentScores.zeros(1)
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
