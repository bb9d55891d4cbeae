"""Doubt: entropies of known distributions, AUC by hand, success among the kept."""

import math

import numpy as np
import pytest
import torch

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


def test_an_episode_has_the_means_of_its_chunks():
    made = [{"doubt": {"naming": 0.0, "nats": 1.0}}, {"doubt": {"naming": 1.0, "nats": 2.0}}]
    found = doubt.of_episode(made, "raise the red star", ["raise"])
    assert found == {"naming": 0.5, "nats": 1.5, "unknown": 0.25}
    assert doubt.of_episode([], "raise it", []) == {"unknown": 0.0}


def test_auc_by_hand():
    assert doubt.auc([1, 2], [3, 4]) == 1
    assert doubt.auc([1, 3], [2, 3]) == pytest.approx((1 + 0 + 1 + 0.5) / 4)
    assert doubt.auc([1, 1], [1, 1]) == 0.5
    assert doubt.auc([], [1]) is None


def test_the_least_doubtful_are_kept_first():
    kept, success = doubt.kept_success([3, 1, 2, 2], [False, True, True, False])
    assert np.allclose(kept, [0.25, 0.5, 0.75, 1])
    # The two of equal doubt count half each.
    assert np.allclose(success, [1, 0.75, 2 / 3, 0.5])
