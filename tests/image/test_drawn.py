"""Drawn pictures: drawn once, continued after a kill, refused for others, and of the right scenes."""

import numpy as np
import pytest

from base.files import UserError
from image import drawn
from image.drawn import Drawing, Pictures
from worlds import scenes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("drawn") / "d"
    wanted = Drawing(data_dir=str(path), pictures=8, held_back=4, workers=1)
    return path, wanted, drawn.make(wanted, 32)


def test_pictures_are_drawn_once_and_continued(folder):
    path, wanted, meta = folder
    before = {name: (path / name).stat().st_mtime_ns for name in meta["files"]}
    raw = (path / "pixels_val.npy").read_bytes()
    assert drawn.make(wanted, 32) == meta
    (path / "meta.json").rename(path / "aside")
    (path / "pixels_val.npy").unlink()  # as after a kill
    assert drawn.make(wanted, 32) == meta and (path / "pixels_val.npy").read_bytes() == raw
    after = {name: (path / name).stat().st_mtime_ns for name in meta["files"]}
    assert [name for name in before if before[name] != after[name]] == [
        "pixels_val.npy",
        "scenes_val.jsonl",
    ]


def test_what_is_held_out_is_in_judge_alone(folder):
    path, wanted, meta = folder
    assert meta["splits"] == {"train": 8, "val": 4, "judge": 4}
    train, judge = Pictures(path, "train", meta), Pictures(path, "judge", meta)
    assert train.pixels.shape == (8, 32, 32, 3) and len(train) == 8
    assert not any(
        scenes.held_pair(thing.colour, thing.shape)
        for scene in train.scenes
        for thing in scene.objects
    )
    assert any(scenes.held_pair(t.colour, t.shape) for t in judge.scenes[0].objects)
    assert len(judge.scenes[3].objects) >= 4
    for number, scene in enumerate(judge.scenes):
        assert (judge.places[number, :, 2] > 0).sum() == len(scene.objects)
        assert (drawn.picture(scene, 32) == judge.pixels[number]).all()


def test_a_tidy_object_has_the_same_pixels_at_each_place():
    pixels = []
    for column, row in ((4, 4), (7, 5), (6, 8)):
        thing = scenes.Object("star", "red", "large", "striped", column / 12, row / 12, 0.21)
        picture = drawn.picture(scenes.Scene([thing], seed=3, tidy=True), 96)
        pixels.append(picture[8 * (row - 3) : 8 * (row + 3), 8 * (column - 3) : 8 * (column + 3)])
    assert len({tuple(picture[0, 0]) for picture in pixels}) == 1
    assert (pixels[0] == pixels[1]).all() and (pixels[0] == pixels[2]).all()


def test_other_pictures_and_damage_are_refused(folder):
    path, wanted, meta = folder
    for other, side in ((Drawing(**{**vars(wanted), "noise": 0}), 32), (wanted, 40)):
        with pytest.raises(UserError, match="noise 1|side 32"):
            drawn.make(other, side)
    raw = (path / "pixels_train.npy").read_bytes()
    (path / "pixels_train.npy").write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(UserError, match="pixels_train.npy, which was changed"):
        Pictures(path, "train", meta)
    (path / "pixels_train.npy").write_bytes(raw)
    assert isinstance(Pictures(path, "train", meta).pixels, np.memmap)
