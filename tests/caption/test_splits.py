"""Which photograph belongs to which split, and which cannot be used."""

import pytest
from PIL import Image

from base.files import UserError
from caption import splits

NONE = dict.fromkeys(splits.LISTS)
PHOTOS = {f"p{number}.jpg": (None, ["a dog"]) for number in range(40)}


def test_the_data_sets_own_splits_come_first(tmp_path):
    (tmp_path / "Flickr_8k.devImages.txt").write_text("a.jpg\n")
    photos = {"b.jpg": ("val", ["x"]), "a.jpg": ("train", ["x"]), "c.jpg": (None, ["x"])}
    assert splits.choose(photos, tmp_path, NONE) == {"a.jpg": "train", "b.jpg": "val"}


def test_lists_beside_the_captions(tmp_path, capsys):
    (tmp_path / "Flickr_8k.trainImages.txt").write_bytes(b"p1.jpg\r\np2.jpg\r\n")
    (tmp_path / "Flickr_8k.devImages.txt").write_text("p3.jpg\nnowhere.jpg\n")
    (tmp_path / "captions.csv").write_text("")
    found = splits.choose(PHOTOS, tmp_path / "captions.csv", NONE)
    assert found == {"p1.jpg": "train", "p2.jpg": "train", "p3.jpg": "val"}
    assert "37 images are in no split" in capsys.readouterr().err
    (tmp_path / "mine.txt").write_text("p9\n")
    with pytest.raises(UserError, match="no image of"):
        splits.choose(PHOTOS, tmp_path, {**NONE, "val": str(tmp_path / "mine.txt")})


def test_val_is_drawn_from_train(tmp_path):
    nowhere = tmp_path / "nowhere"
    drawn = splits.choose(PHOTOS, nowhere, NONE, seed=3)
    assert list(drawn) == sorted(PHOTOS) and list(drawn.values()).count("val") == 2
    assert drawn == splits.choose(PHOTOS, nowhere, NONE, seed=3)
    assert drawn != splits.choose(PHOTOS, nowhere, NONE, seed=4)
    assert list(splits.choose(PHOTOS, nowhere, NONE, num_val=7).values()).count("val") == 7
    assert len(splits.choose(PHOTOS, nowhere, NONE, max_images=5)) == 5
    with pytest.raises(UserError, match="--num_val 40 of 40 images"):
        splits.choose(PHOTOS, nowhere, NONE, num_val=40)


def test_bad_images_are_named(tmp_path, capsys):
    Image.new("RGB", (30, 20), "red").save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"cut")
    names = ["good.png", "bad.png", "missing.png"]
    assert splits.usable(tmp_path, names, tmp_path, workers=1) == ["good.png"]
    skipped = (tmp_path / "skipped.txt").read_text().splitlines()
    assert ["bad.png" in skipped[0], "missing.png" in skipped[1]] == [True, True]
    assert "2 of 3 images are left out" in capsys.readouterr().err
    with pytest.raises(UserError, match="none of 1 images"):
        splits.usable(tmp_path, ["bad.png"], tmp_path, workers=1)
