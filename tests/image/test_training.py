"""Batches: the eight symmetries keep pictures and scenes together, and a step decides its batch."""

import numpy as np
import pytest
import torch

from base.files import UserError
from image import drawn, training
from image.drawn import Drawing, Pictures
from net.picture_codes import PictureCodes, PictureCodesConfig
from worlds.scenes import Object, Scene


@pytest.mark.parametrize("symmetry", range(8))
def test_a_symmetry_moves_pixels_and_points_alike(symmetry):
    image = np.zeros((8, 8, 3), np.uint8)
    image[1, 2] = 255  # row 1, column 2
    point = np.array([(2 + 0.5) / 8, (1 + 0.5) / 8])
    x, y = training.turned_points(point, symmetry) * 8 - 0.5
    turned = training.turned_pixels(image, symmetry)
    assert turned[round(y), round(x)].tolist() == [255] * 3 and turned.sum() == 3 * 255
    thing = Object("star", "red", "small", "solid", *point.tolist(), 0.08)
    (moved,) = training.turned_scene(Scene([thing]), symmetry).objects
    assert (moved.x * 8 - 0.5, moved.y * 8 - 0.5) == pytest.approx((x, y))


def test_the_symmetries_are_eight():
    points = np.random.default_rng(0).random((5, 2))
    found = {training.turned_points(points, symmetry).tobytes() for symmetry in range(8)}
    assert len(found) == 8


def test_a_window_shows_the_middle_of_an_object():
    rng = np.random.default_rng(0)
    for _ in range(200):
        places = np.zeros((5, 3))
        places[:2, :2], places[:2, 2] = rng.random((2, 2)), 0.1
        top, left = training.window(places, rng.random(3), 96, 48)
        assert 0 <= top <= 48 and 0 <= left <= 48
        middles = places[:2, :2] * 96 - (left, top)
        assert ((middles >= -1) & (middles <= 49)).all(1).any()  # a corner is a whole pixel


def test_windows_are_cut_out_of_the_turned_pictures(tmp_path):
    wanted = Drawing(data_dir=str(tmp_path / "d"), pictures=8, held_back=2, workers=1)
    source = [Pictures(tmp_path / "d", "train", drawn.make(wanted, 32))]
    (whole,) = training.PictureBatches(source, 6, 1, seed=3)(5)
    (cut,) = training.PictureBatches(source, 6, 1, seed=3, crop=16)(5)
    assert len(whole["corners"]) == 0 and torch.equal(whole["places"], cut["places"])
    for row, (top, left) in enumerate(cut["corners"].tolist()):
        seen = whole["pixels"][row, :, top : top + 16, left : left + 16]
        assert torch.equal(cut["pixels"][row], seen)


def test_a_step_decides_its_batch(tmp_path):
    wanted = Drawing(data_dir=str(tmp_path / "d"), pictures=8, held_back=2, workers=1)
    meta = drawn.make(wanted, 32)
    sources = [Pictures(tmp_path / "d", split, meta) for split in ("train", "judge")]
    whole = training.PictureBatches(sources, 12, 1, seed=3)
    parts = training.PictureBatches(sources, 12, 3, seed=3)
    (batch,) = whole(5)
    again = parts(5)
    assert torch.equal(batch["pixels"], torch.cat([part["pixels"] for part in again]))
    assert sum(part["weight"] for part in again) == batch["weight"] == 12
    assert not torch.equal(batch["tokens"], whole(6)[0]["tokens"])
    seen = torch.cat([whole(step)[0]["tokens"] for step in range(12)])
    assert set(seen.tolist()) == set(range(12))  # of both sources
    for scene, places in zip(batch["scenes"], batch["places"], strict=True):
        assert [thing.x for thing in scene.objects] == pytest.approx(
            places[: len(scene.objects), 0].tolist()
        )

    def loss_fn(model, batch, rng):
        return model(batch["pixels"])[0].mean(), {}

    model = PictureCodes(PictureCodesConfig(side=32, width=16, blocks=1))
    assert training.operations(model, loss_fn, whole) == 12 * training.operations(
        model, loss_fn, training.PictureBatches(sources, 1, 1, seed=0)
    )
    assert all(weight.grad is None for weight in model.parameters())
    with pytest.raises(UserError, match="--width 16.*--width 32"):
        training.refuse_other_sizes({"model": {**vars(model.config), "width": 32}}, model.config)
