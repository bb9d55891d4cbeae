"""Figures against values that can be computed by hand, or that are known."""

import numpy as np
import pytest

from base import metrics


def test_a_ratio_lies_in_its_interval():
    rng = np.random.default_rng(0)
    sizes = rng.integers(5, 20, 200).astype(float)
    costs = 2 * sizes + rng.normal(size=200)
    low, high = metrics.ratio_interval(costs, sizes)
    assert low < 2 < high and high - low < 0.1
    assert metrics.ratio_interval(costs, sizes) == (low, high)  # the seed decides


def test_resampled_sums():
    values = np.arange(12.0).reshape(6, 2)
    sums = metrics.resampled_sums(values, resamples=4000)
    assert sums.shape == (4000, 2)
    assert np.allclose(sums.mean(0), values.sum(0), rtol=0.02)


def test_variety_of_texts():
    same, different = [np.array([1, 1, 1, 1, 1])], [np.array([1, 2, 3, 4, 5])]
    assert metrics.unigram_entropy(same) == 0
    assert metrics.unigram_entropy(different) == pytest.approx(np.log(5))
    assert metrics.distinct(same, 2) == 1 / 4 and metrics.distinct(different, 2) == 1
    assert metrics.repetition(same) == 1 / 2 and metrics.repetition(different) == 0
    assert metrics.variety(different)["distinct_3"] == 1


def test_a_share_near_its_ends():
    """Wilson's interval: 0 of 10 is 0 to 27.8% (Wilson 1927), and no figures is no knowledge."""
    assert metrics.share_interval(0, 10) == pytest.approx([0, 0.2775], abs=1e-4)
    assert metrics.share_interval(10, 10) == pytest.approx([0.7225, 1], abs=1e-4)
    assert metrics.share_interval(0, 0) == [0.0, 1.0]


def test_agreement_of_raters():
    """Krippendorff's own example of four raters and twelve units (2011): 0.815 ordinal, 0.849 interval."""
    gap = np.nan
    ratings = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, gap, gap, gap],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, gap, 3],
        [gap, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, gap],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, gap],
    ]
    table = np.array(ratings).T
    assert metrics.agreement(table) == pytest.approx(0.815, abs=1e-3)
    assert metrics.agreement(table, "interval") == pytest.approx(0.849, abs=1e-3)
    assert metrics.agreement(np.ones((3, 2))) is None


def test_overlap_of_bags():
    assert metrics.overlap([1, 2, 2], [2, 2, 3]) == pytest.approx(2 / 3)
    assert metrics.overlap([], []) == 0


def test_a_table():
    assert metrics.markdown([["a", "b"], ["1", "2"]]) == "| a | b |\n|---|---|\n| 1 | 2 |"


def test_closed_forms_of_variety_and_of_an_interval():
    ids = [np.array([1, 1, 2, 2]), np.array([3, 3, 3, 3])]
    assert metrics.unigram_entropy(ids) == pytest.approx(np.log(2) / 2)
    assert metrics.distinct(ids, 1) == 3 / 8 and metrics.distinct(ids, 2) == 4 / 6
    assert metrics.distinct([np.array([1])], 2) == 0
    assert metrics.repetition([np.array([1, 2, 1, 2, 1])], 2) == pytest.approx(0.5)
    low, high = metrics.ratio_interval(np.arange(1.0, 401), np.full(400, 2.0))
    mean, error = 100.25, np.arange(1.0, 401).std() / 2 / 20
    assert low == pytest.approx(mean - 1.96 * error, abs=0.6)
    assert high == pytest.approx(mean + 1.96 * error, abs=0.6)


def test_auc_by_hand():
    assert metrics.auc([1, 2], [3, 4]) == 1
    assert metrics.auc([1, 3], [2, 3]) == pytest.approx((1 + 0 + 1 + 0.5) / 4)
    assert metrics.auc([1, 1], [1, 1]) == 0.5
    assert metrics.auc([], [1]) is None


def test_documents_that_count_nothing():
    none = np.zeros(3)
    assert metrics.ratio_interval(none, none) == (0.0, 0.0)
