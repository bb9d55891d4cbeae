"""What is seen, as a policy reads it: the arrays of training bit for bit, and bad input named."""

import numpy as np
import pytest

from base.errors import UserError
from base.facts import image_keys
from base.observations import Observer, padded, real_of, resized
from base.scaling import Scaling

SCALING = Scaling.measured(
    np.random.default_rng(0).random((50, 4)), np.random.default_rng(1).random((50, 3))
)


def test_a_list_is_padded():
    places = padded(np.ones((5, 3)))
    assert places.shape == (8, 3) and places.dtype == np.float32
    assert places[:5].all() and not places[5:].any()
    kinds = np.zeros((2, 8, 4), np.uint8)
    kinds[0, :5, 1] = 1
    assert real_of(kinds).sum(1).tolist() == [5, 0]


def test_images_become_squares_with_their_cameras_behind_each_other():
    rng = np.random.default_rng(0)
    names = ["observation.images.front", "observation.images.wrist"]
    assert image_keys(names) == ["image", "image_wrist"]
    seen = {name: rng.integers(0, 256, (40, 30, 3), np.uint8) for name in image_keys(names)}
    seen["state"] = np.ones(3, np.float32)
    parts, state = Observer("pixels", names, 16, SCALING).read(seen)
    images = parts["images"]
    assert images.shape == (1, 2, 16, 16, 3) and images.dtype == np.uint8
    assert np.array_equal(images[0, 1], resized(seen["image_wrist"][None], 16)[0])
    assert state.dtype == np.float32 and state.shape == (1, 3)
    same, _ = Observer("pixels", names, 0, SCALING).read(seen)
    assert np.array_equal(same["images"][0, 0], seen["image"])


@pytest.mark.parametrize(
    "change, part",
    [
        ({"state": None}, "without 'state'"),
        ({"image": None}, "without 'image'"),
        ({"state": np.zeros(5)}, "a state of shape"),
        ({"image": np.zeros((16, 16), np.uint8)}, "of shape"),
        ({"image": np.zeros((16, 16, 3))}, "float64"),
    ],
)
def test_bad_input_is_named(change, part):
    seen = {"state": np.zeros(3), "image": np.zeros((16, 16, 3), np.uint8)}
    seen = {name: value for name, value in {**seen, **change}.items() if value is not None}
    with pytest.raises(UserError, match=part):
        Observer("pixels", ["front"], 16, SCALING).read(seen)
