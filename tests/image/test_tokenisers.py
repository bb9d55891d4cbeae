"""Files of picture codes and readers: what was saved is opened, what is broken or foreign is refused."""

import json

import numpy as np
import pytest
import torch

from base.files import UserError
from image import tokenisers
from tests.making.pictures import make_codes, make_reader


def test_what_is_saved_is_opened(tmp_path):
    path = make_codes(tmp_path / "codes.safetensors", levels="4,4,3")
    model, again = tokenisers.open_codes(path), tokenisers.open_codes(path)
    assert model.config.codes == 48 and not model.training
    pixels = torch.rand(2, 3, 32, 32)
    assert (model.encode(pixels) == again.encode(pixels)).all()
    # Weights of a file are whole float16 numbers, so saving them again gives the same file.
    tokenisers.save_codes(tmp_path / "again", model, "a test")
    assert tokenisers.fingerprint(tmp_path / "again") == tokenisers.fingerprint(path)
    reader = tokenisers.open_reader(make_reader(tmp_path / "reader", threshold=0.2))
    assert reader.config.threshold == 0.2 and len(reader.read(pixels)) == 2


def test_any_flipped_byte_is_refused(tmp_path):
    path = make_codes(tmp_path / "codes")
    raw = path.read_bytes()
    for place in (3, 40, len(raw) // 3, len(raw) - 5):
        broken = bytearray(raw)
        broken[place] ^= 16
        path.write_bytes(broken)
        with pytest.raises(UserError, match="damaged or no picture codes"):
            tokenisers.open_codes(path)
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(UserError, match="damaged or no picture codes"):
        tokenisers.open_codes(path)


def test_foreign_files_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    reader, codes = make_reader(tmp_path / "reader"), make_codes(tmp_path / "codes")
    with pytest.raises(UserError, match="no picture codes"):
        tokenisers.open_codes(reader)
    with pytest.raises(UserError, match="no picture reader"):
        tokenisers.open_reader(codes)
    with pytest.raises(UserError, match="tools.train_picture_codes"):
        tokenisers.open_codes(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no picture codes"):
        tokenisers.open_codes("assets/scene_encoder.safetensors")
    weights = load_file(codes)
    about = {"kind": "picture codes", "sha256": tokenisers.digest(weights)}
    size = {"side": 32, "width": 16, "blocks": 1, "levels": "8,5,5,5"}
    for config, message in (
        ({"width": 1024}, "damaged"),  # a small file must not ask for much memory
        ({"width": 1 << 40}, "--width"),
        ({"depth": 3}, "the key 'depth'"),
        ({"levels": "8,5,5"}, "damaged"),
        ({"levels": 8}, "--levels"),
    ):
        text = json.dumps({**about, "config": size | config})
        save_file(weights, tmp_path / "other", {"about": text})
        with pytest.raises(UserError, match=message):
            tokenisers.open_codes(tmp_path / "other")


def test_images_become_pixels_and_come_back():
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    pixels = tokenisers.to_pixels(images)
    assert pixels.shape == (2, 3, 8, 8) and pixels.is_contiguous(memory_format=torch.channels_last)
    assert pixels.max() <= 1 and (tokenisers.to_images(pixels) == images).all()
