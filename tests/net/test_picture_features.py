"""The distance of features: zero for equal pictures, larger where another thing is to be seen."""

import pytest
import torch

from image import drawn
from image.tokenisers import to_pixels
from net.picture_features import FeatureDistance
from worlds.scenes import Object, Scene


@pytest.fixture(scope="module")
def distance() -> FeatureDistance:
    return FeatureDistance(96, "cpu")


def seen(fill: str, shade: float = 0.0) -> torch.Tensor:
    thing = Object("square", "red", "large", fill, x=0.5, y=0.5, radius=0.2)
    return (to_pixels(drawn.picture(Scene([thing]), 96)[None]) + shade).clamp(0, 1)


def test_equal_pictures_have_no_distance(distance):
    pixels = torch.rand(2, 3, 48, 48)
    found = pixels.clone().requires_grad_()
    assert distance(found, pixels) == 0
    (distance(found * 0.9, pixels)).backward()
    assert found.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in distance.encoder.model.parameters())


def test_another_filling_is_farther_than_another_light(distance):
    """Both differ from the picture; the L1 distance of the light is not the smaller distance."""
    striped, solid, lighter = seen("striped"), seen("solid"), seen("striped", 0.05)
    assert (lighter - striped).abs().mean() > 0.8 * (solid - striped).abs().mean()
    assert distance(solid, striped) > 2 * distance(lighter, striped)
