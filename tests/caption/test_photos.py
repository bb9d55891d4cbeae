"""The layouts of captioned photographs, told apart and read into one form; crops of images."""

import json

import numpy as np
import pytest
from PIL import Image

from base.files import UserError
from caption import photos


@pytest.mark.parametrize(
    "text",
    [
        "p0.jpg,a\tdog , runs\n",
        '\ufeffimage,caption\r\np0.jpg,"a\tdog , runs"\r\n',
        "image\tcaption\np0.jpg\ta dog , runs\n",
        "p0.jpg#0\ta  dog , runs\n",
    ],
)
def test_tables_with_and_without_a_header(tmp_path, text):
    (tmp_path / "t.csv").write_bytes(text.encode())
    assert photos.read(str(tmp_path / "t.csv"), tmp_path) == {"p0.jpg": (None, ["a dog , runs"])}


def test_text_files_of_images_in_any_encoding(tmp_path):
    """A byte order mark is no part of a caption; a text that is no UTF-8 is named with its line."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (8, 8)).save(folder / f"{name}.png")
    (folder / "a.txt").write_bytes(b"\xef\xbb\xbfa dog\r\na red dog\r\n")
    (folder / "b.txt").write_text("a cat")
    assert photos.read(str(folder), folder) == {
        "a.png": (None, ["a dog", "a red dog"]),
        "b.png": (None, ["a cat"]),
    }
    (folder / "b.txt").write_bytes("a cat\na café".encode("cp1252"))
    with pytest.raises(UserError, match="b.txt with bytes .* line 2 .*WINDOWS-1252 is likely"):
        photos.read(str(folder), folder)
    (folder / "b.txt").write_text("a cat", encoding="utf-16")
    with pytest.raises(UserError, match="b.txt, which is in UTF-16"):
        photos.read(str(folder), folder)


def test_text_files_are_found_whatever_their_letters(tmp_path, capsys):
    """a.TXT and b.caption belong to their images; a text without an image is counted."""
    (tmp_path / "deep").mkdir()
    for name in ("a.JPG", "b.png", "deep/c.png", "d.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    texts = ("a.TXT", "b.caption", "deep/c.Txt", "alone.txt")
    for name in texts:
        (tmp_path / name).write_text(f"caption of {name}\n")
    assert photos.read(str(tmp_path), tmp_path) == {
        "a.JPG": (None, ["caption of a.TXT"]),
        "b.png": (None, ["caption of b.caption"]),
        "deep/c.png": (None, ["caption of deep/c.Txt"]),
    }
    said = capsys.readouterr().err
    assert "1 text files belong to no image (the first: " in said and "alone.txt" in said
    assert "1 of 4 images have no caption" in said and "left out: " not in said


def test_jsons_are_told_apart(tmp_path, capsys):
    coco = {
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}],
        "annotations": [
            {"image_id": 7, "caption": " a  dog "},
            {"image_id": 7, "caption": "two\ncats"},
        ],
    }
    (tmp_path / "c.json").write_text(json.dumps(coco))
    expected = {"a.jpg": (None, ["a dog", "two cats"])}
    assert photos.read(str(tmp_path / "c.json"), tmp_path) == expected
    assert "1 of 2 images have no caption" in capsys.readouterr().err
    image = {"filename": "a.jpg", "filepath": "x", "split": "restval", "sentences": [{"raw": "b"}]}
    (tmp_path / "dataset_flickr8k.json").write_text(json.dumps({"images": [image]}))
    found = photos.read(str(tmp_path / "dataset_flickr8k.json"), tmp_path)
    assert found == {"x/a.jpg": ("train", ["b"])}
    assert "the usual split has (6000, 1000, 1000)" in capsys.readouterr().err


def test_a_name_may_not_climb_out(tmp_path):
    (tmp_path / "t.csv").write_text("../p0.jpg,a dog\n")
    with pytest.raises(UserError, match="leads out of"):
        photos.read(str(tmp_path / "t.csv"), tmp_path)


def test_the_only_file_of_captions_is_found(tmp_path):
    assert photos.find_file(tmp_path) == tmp_path
    (tmp_path / "captions_1.txt").write_text("a dog")
    (tmp_path / "captions_1.jpg").write_bytes(b"")  # so the text is this image's
    assert photos.find_file(tmp_path) == tmp_path
    (tmp_path / "a.csv").write_text("")
    assert photos.find_file(tmp_path) == tmp_path / "a.csv"
    (tmp_path / "._a.csv").write_bytes(b"\0")  # macOS leaves such files
    assert photos.find_file(tmp_path) == tmp_path / "a.csv"
    (tmp_path / "b.TSV").write_text("")
    with pytest.raises(UserError, match="2 files of captions"):
        photos.find_file(tmp_path)


def hub_folder(root, tables: dict[str, str]) -> None:
    """Files of text below a folder, and the image 0001.jpg next to each of them."""
    for name, text in tables.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
        ((root / name).parent / "0001.jpg").write_bytes(b"")


def test_an_imagefolder_with_a_file_for_each_split(tmp_path):
    """Names are relative to the file. The folder's name is the split, unless there is a column."""
    hub_folder(
        tmp_path,
        {
            "train/metadata.csv": "file_name,text\n0001.jpg,a dog\n",
            "validation/metadata.jsonl": '{"file_name": "0001.jpg", "text": "a cat"}\n',
            "more/metadata.csv": "file_name,split,text\n0001.jpg,test,a boat\n",
        },
    )
    assert photos.find_file(tmp_path) == tmp_path
    assert photos.read(str(tmp_path), tmp_path) == {
        "train/0001.jpg": ("train", ["a dog"]),
        "validation/0001.jpg": ("val", ["a cat"]),
        "more/0001.jpg": ("test", ["a boat"]),
    }
    (tmp_path / "captions.csv").write_text("train/0001.jpg,a dog\n")
    with pytest.raises(UserError, match="4 files of captions in .* .captions.csv more/metadata"):
        photos.find_file(tmp_path)


def test_an_imagefolder_with_one_file(tmp_path):
    hub_folder(tmp_path, {"train/x": "", "test/x": ""})
    lines = [{"file_name": f"{name}/0001.jpg", "text": "a dog"} for name in ("train", "test")]
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    path = photos.find_file(tmp_path)
    assert path == tmp_path / "metadata.jsonl"
    assert photos.read(str(path), tmp_path) == {
        "train/0001.jpg": ("train", ["a dog"]),
        "test/0001.jpg": ("test", ["a dog"]),
    }
    (tmp_path / "train" / "metadata.csv").write_text("file_name,text\n0001.jpg,a dog\n")
    (tmp_path / "train" / "metadata.jsonl").write_text('{"file_name": "0001.jpg", "text": "b"}')
    with pytest.raises(UserError, match="both .*train/metadata.csv and metadata.jsonl"):
        photos.read(str(tmp_path), tmp_path)


def test_a_list_of_objects_and_an_object_of_no_known_kind(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('[{"image": "a.jpg", "caption": "a dog"}]')
    assert photos.read(str(path), tmp_path) == {"a.jpg": (None, ["a dog"])}
    path.write_text('{"image": "a.jpg", "caption": "a dog"}')
    assert photos.read(str(path), tmp_path) == {"a.jpg": (None, ["a dog"])}
    for text, message in (
        ('{"data": [], "info": 3}', "with the columns 'data' 'info'"),
        ("3", "neither an object nor a list"),
        ("[]", "with the columns"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            photos.read(str(path), tmp_path)


def test_columns_of_the_hub_are_captions_or_named():
    image = {"bytes": b"", "path": None}
    row = {"image": image, "caption_0": "a dog", "caption_1": ["b"], "caption_id": 7}
    assert photos.columns_of(row, "x/y") == (image, ["a dog", "b"])
    with pytest.raises(UserError, match="the column caption_id in x/y, which holds no texts"):
        photos.columns_of({"image": image, "caption_id": 7}, "x/y")


def test_crops_lose_at_most_a_fifth_of_a_side():
    """Every second crop is mirrored, and then has no caption that tells left from right."""
    assert photos.SIDES.search("on the LEFT") and not photos.SIDES.search("a bright cleft")
    record = {"image": "a.jpg", "split": "train", "captions": ["a dog", "a cat on the left"]}
    first, *crops = photos.views_of(record, 5, np.random.default_rng(0))
    assert first == record and len(crops) == 4
    for number, crop in enumerate(crops):
        left, top, right, bottom, mirrored = crop["view"]
        assert right - left >= 0.8 and bottom - top >= 0.8
        assert left >= 0 and right <= 1 and top >= 0 and bottom <= 1
        assert mirrored == (number % 2 == 0)
        assert crop["captions"] == (["a dog"] if mirrored else record["captions"])
    sided = {**record, "captions": ["a cat on the left"]}
    assert photos.views_of(sided, 2, np.random.default_rng(0))[1]["view"][4] == 0
