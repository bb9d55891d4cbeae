"""Doubt: entropies of known distributions, AUC by hand, success among the kept."""

import math

import numpy as np
import pytest
import torch

from base import metrics
from base.driving import Made
from net.chunks import Trace
from robot import doubt


def test_naming_entropy_leaves_out_what_is_no_thing():
    even = torch.tensor([[[math.log(0.5), math.log(0.5), -math.inf], [0.0, -9.0, -9.0]]])
    assert doubt.naming_entropy(even) == pytest.approx(math.log(2))
    sure = torch.tensor([[[0.0, -math.inf, -math.inf], [0.0, -9.0, -9.0]]])
    assert doubt.naming_entropy(sure) == 0


def test_a_head_of_numbers_has_no_nats():
    scores = torch.zeros(1, 2, 1)
    assert doubt.of_chunk(Trace(), scores) == {"naming": 0.0}
    trace = Trace(nats=torch.tensor([1.5]), entropy=torch.tensor([2.0]))
    assert doubt.of_chunk(trace, scores) == {"naming": 0.0, "nats": 1.5, "entropy": 2.0}


def chunk(**signals: float) -> Made:
    return Made(np.zeros((8, 4), np.float32), doubt=signals)


def test_an_episode_has_its_first_chunk_and_the_means_of_its_chunks():
    made = [chunk(naming=0.0, nats=1.0), chunk(naming=1.0, nats=2.0)]
    found = doubt.of_episode(made, "raise the red star", ["raise"])
    assert found["first"] == {"naming": 0.0, "nats": 1.0, "unknown": 0.25}
    assert found["mean"] == {"naming": 0.5, "nats": 1.5, "unknown": 0.25}
    assert doubt.of_episode([], "raise it", [])["first"] == {"unknown": 0.0}


def test_medians_are_of_the_signals_that_all_episodes_have():
    made = [[chunk(naming=0.0, nats=number)] for number in (1.0, 5.0, 2.0)]
    found = [doubt.of_episode(each, "raise it", ["it"]) for each in made]
    assert doubt.medians(found)["mean"] == {"naming": 0.0, "nats": 2.0, "unknown": 0.5}
    found.append(doubt.of_episode([], "raise it", []))
    assert doubt.medians(found)["first"] == {"unknown": 0.5}
    assert doubt.medians([]) == {} and doubt.medians([{}]) == {}


def test_the_interval_of_an_auc_holds_it_and_stays_wide_at_the_ends():
    low, high = doubt.auc_interval(0.5, 60, 60)
    assert low == pytest.approx(1 - high) and 0.38 < low < 0.42
    low, high = doubt.auc_interval(1.0, 57, 3)
    assert high == 1 and 0.6 < low < 0.8
    many = doubt.auc_interval(0.8, 500, 500)
    few = doubt.auc_interval(0.8, 50, 50)
    assert few[0] < many[0] < 0.8 < many[1] < few[1]


def test_intervals_of_auc_hold_the_truth_as_often_as_they_say():
    """Numbers from two normal distributions, 1 apart: the true AUC is Phi(1 / sqrt 2) = 0.760."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        value = metrics.auc(rng.normal(size=30), rng.normal(1, size=20))
        low, high = doubt.auc_interval(value, 30, 20)
        held += low <= 0.760 <= high
    assert 0.91 < held / 300 < 0.99


def test_the_least_doubtful_are_kept_first():
    kept, success = doubt.kept_success([3, 1, 2, 2], [False, True, True, False])
    assert np.allclose(kept, [0.25, 0.5, 0.75, 1])
    # The two of equal doubt count half each.
    assert np.allclose(success, [1, 0.75, 2 / 3, 0.5])
