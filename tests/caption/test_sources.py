"""Images to caption: one kind of source, in order, and bad files that are skipped."""

import pytest
from PIL import Image

from base.files import UserError
from caption import sources
from caption.sources import Source
from tests.making.captioned import by_hand


def test_one_kind_of_source(tmp_path):
    for number in (2, 0, 1):
        Image.new("RGB", (9, 9)).save(tmp_path / f"{number}.png")
    image = str(tmp_path / "1.png")
    assert sources.images_of(Source(image=image)) == [(image, {})]
    assert sources.images_of(Source(image=image, num_samples=3)) == [(image, {})] * 3
    found = sources.images_of(Source(image_dir=str(tmp_path), num_samples=2))
    assert found == [(str(tmp_path / f"{number}.png"), {}) for number in (0, 1)]
    for source in (Source(), Source(image=image, use_val_set=True)):
        with pytest.raises(UserError, match="no image, or several kinds"):
            sources.images_of(source)


def test_a_split_comes_with_its_records(tmp_path):
    records = [
        {"image": f"{number}.png", "split": split, "captions": ["a red circle"]}
        for number, split in enumerate(["val", "train", "val"])
    ]
    folder = str(by_hand(tmp_path / "data", records))
    found = sources.images_of(Source(use_val_set=True, data_dir=folder))
    assert found == [(f"{folder}/{number}.png", records[number]) for number in (0, 2)]
    with pytest.raises(UserError, match="no split 'test'"):
        sources.images_of(Source(use_val_set=True, data_dir=folder, split="test"))


def test_bad_images_are_skipped(tmp_path, capsys):
    Image.new("RGB", (9, 9), "red").save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"cut")
    batch = [(str(tmp_path / name), {}) for name in ("bad.png", "good.png", "none.png")]
    skipped: list[str] = []
    ((path, _, image),) = sources.open_images(batch, skipped)
    assert path == batch[1][0] and image.size == (9, 9)
    assert skipped == [batch[0][0], batch[2][0]]
    assert capsys.readouterr().err.count("skipped: found ") == 2
