"""Drawing a folder of scenes: an image that is there stays, a stopped run keeps its settings."""

from functools import partial

import numpy as np
import pytest

from base import files
from base.files import UserError
from caption import scene_folder
from worlds import scenes


def line(folder, split, number):
    scene = scenes.sample_scene(np.random.default_rng(number), 1)
    return scene_folder.make_record(folder, split, number, scene, [f"{split} {number}"])


def test_lines_come_in_order_and_images_are_drawn_once(tmp_path):
    sizes = {"train": 3, "val": 2}
    records = scene_folder.draw_all(partial(line, tmp_path), sizes, tmp_path, workers=1)
    assert [record["captions"][0] for record in records] == [
        "train 0",
        "train 1",
        "train 2",
        "val 0",
        "val 1",
    ]
    path = tmp_path / records[0]["image"]
    path.write_bytes(b"drawn before")
    scene_folder.draw_all(partial(line, tmp_path), sizes, tmp_path, workers=1)
    assert path.read_bytes() == b"drawn before" and not list(tmp_path.rglob("*.tmp"))


def test_a_stopped_run_keeps_its_settings(tmp_path):
    assert not scene_folder.captions_are_there(tmp_path, {"seed": 0})
    (tmp_path / "images").mkdir()
    with pytest.raises(UserError, match="settings of a stopped run"):
        scene_folder.captions_are_there(tmp_path, {"seed": 0})
    files.write_json(tmp_path / "settings.json", {"seed": 0})
    assert not scene_folder.captions_are_there(tmp_path, {"seed": 0})
    with pytest.raises(UserError, match="a stopped run with other settings"):
        scene_folder.captions_are_there(tmp_path, {"seed": 1})
