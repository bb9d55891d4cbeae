"""The loss of a grounder: maps that point at pixels, and names that are not there."""

import pytest
import torch

from robot import grounding
from robot.stills import NOTHING


def test_a_map_points_at_its_pixel():
    pixels = torch.tensor([[[[0.125, 0.625]]], [[[10.0, -10.0]]]])  # (2, 1, 1, 2)
    target = grounding.map_targets(pixels, 4)
    assert target.shape == (2, 1, 16)
    assert target[0, 0].argmax() == 2 * 4 + 0
    assert torch.allclose(target.sum(-1), torch.ones(2, 1))


def test_the_camera_that_sees_the_thing_gets_the_target():
    pixels = torch.tensor([[[[10.0, 10.0], [0.5, 0.5]]]])  # (1, 1, 2, 2)
    target = grounding.map_targets(pixels, 4)[0, 0]
    assert target[16:].sum().item() == pytest.approx(1)


def test_the_loss_of_a_map_is_the_cross_entropy():
    pixels = torch.rand(3, 2, 1, 2)
    scores = torch.randn(3, 2, 16).log_softmax(-1)
    index = torch.tensor([[0, 1], [2, NOTHING], [1, 0]])
    targets = grounding.map_targets(pixels, 4)
    by_hand = []
    for b in range(3):
        for role in range(2):
            if index[b, role] != NOTHING:
                by_hand.append(-(targets[b, role] * scores[b, role]).sum())
    loss = grounding.map_loss(scores, pixels, index)
    assert loss.item() == pytest.approx(torch.stack(by_hand).mean().item(), abs=1e-5)


def test_no_name_no_loss():
    scores = torch.log(torch.tensor([[[0.5, 0.5, 0.0], [0.25, 0.75, 0.0]]]))
    index = torch.tensor([[1, NOTHING]])
    assert grounding.named_loss(scores, index).item() == pytest.approx(0.6931, abs=1e-3)
