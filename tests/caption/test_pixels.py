"""What an encoder reads of a record: an image, a part of it, or a moving scene without a file."""

import numpy as np
import pytest
from PIL import Image

from base.files import UserError
from caption import pixels
from net.image_encoders import Preprocess
from worlds import drawing, motion, motion_sampling

PREPROCESS = Preprocess(32, "squash", (0.5,) * 3, (0.5,) * 3)


def test_a_moving_scene_is_drawn_from_its_program(tmp_path):
    program = motion_sampling.sample(0, "val", 1)
    record = {"image": "clips/val/000001", "program": program.to_dict()}
    seen = pixels.of_record(PREPROCESS, tmp_path, record)  # the folder is empty
    frames = drawing.draw_frames(motion.frames(program))
    assert seen.shape == (8, 32, 32, 3)
    assert np.array_equal(seen[3], PREPROCESS(frames[3]))


def test_an_image_and_a_part_of_it(tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    picture.save(tmp_path / "a.png")
    whole = pixels.of_record(PREPROCESS, tmp_path, {"image": "a.png"})
    assert np.array_equal(whole, PREPROCESS(picture))
    part = {"image": "a.png", "view": [0, 0, 0.5, 1, 0]}
    assert np.array_equal(
        pixels.of_record(PREPROCESS, tmp_path, part), PREPROCESS(picture.crop((0, 0, 30, 40)))
    )
    with pytest.raises(UserError):
        pixels.of_record(PREPROCESS, tmp_path, {"image": "../a.png"})
