"""A collection of captions is known by its content: every file that decides a caption or a split."""

import pytest
from PIL import Image

import prep_caption_photos
from base.files import UserError
from caption import data, identity


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


@pytest.fixture
def texts(tmp_path):
    """A folder of three images, each with a .txt file, and a list of the images of val."""
    folder = tmp_path / "texts"
    for number in range(3):
        picture(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"a dog {number}")
    (tmp_path / "val.txt").write_text("0.png\n")
    (tmp_path / "train.txt").write_text("1.png\n2.png\n")
    return folder


def prepare(texts, out):
    root = texts.parent
    words = ["--captions", str(texts), "--out", str(out), "--encoder", "none", "--workers", "1"]
    for split in ("train", "val"):
        words += [f"--{split}_list", str(root / f"{split}.txt")]
    prep_caption_photos.main(words)
    return data.read_records(out)


@pytest.mark.parametrize(
    "name, content",
    [("1.txt", "a cat"), ("1.caption", "a cat"), ("../val.txt", "0.png\n1.png\n")],
)
def test_a_second_run_refuses_captions_or_lists_that_were_changed(texts, tmp_path, name, content):
    """Old features would stand next to new captions."""
    before = prepare(texts, tmp_path / "out")
    assert prepare(texts, tmp_path / "out") == before
    (texts / name).write_text(content)
    with pytest.raises(UserError, match="captions or lists that were changed since"):
        prepare(texts, tmp_path / "out")
    assert data.read_records(tmp_path / "out") == before
    assert prepare(texts, tmp_path / "new") != before


def test_texts_of_no_image_and_an_out_below_the_folder_change_nothing(texts, tmp_path):
    (texts / "bad.png").write_bytes(b"no image")
    (texts / "bad.txt").write_text("a bad image")
    (tmp_path / "train.txt").write_text("1.png\n2.png\nbad.png\n")
    before = prepare(texts, texts / "out")
    assert (texts / "out" / "skipped.txt").exists()  # a text file in the folder of the captions
    (texts / "notes.txt").write_text("of no image")
    assert prepare(texts, texts / "out") == before


def test_every_kind_of_captions_has_a_digest_of_its_content(texts, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("image,caption\n0.png,a dog\n")
    folder = tmp_path / "hub"
    picture(folder / "train" / "0.png")
    (folder / "train" / "metadata.csv").write_text("file_name,text\n0.png,a dog\n")
    assert identity.of_captions(tmp_path / "owner" / "name", tmp_path) is None
    for path, file in ((table, table), (folder, folder / "train" / "metadata.csv")):
        before = identity.of_captions(path, tmp_path)
        file.write_text(file.read_text().replace("dog", "cat"))
        assert before and identity.of_captions(path, tmp_path) != before
    assert identity.of_lists({"train": None}, table) is None


def test_folders_of_older_versions_agree():
    """They lack a digest of lists, and hold None for .txt files."""
    facts = {"captions": "x", "captions_sha256": "a", "lists_sha256": "b"}
    assert identity.agree({"captions": "x", "captions_sha256": None, "splits": {}}, facts)
    assert identity.agree({**facts, "splits": {}}, facts)
    assert not identity.agree({**facts, "lists_sha256": None}, facts)
    assert not identity.agree({**facts, "captions_sha256": "c"}, facts)
    assert not identity.agree({"captions_sha256": "a", "lists_sha256": "b"}, facts)
