"""Folders of picture tokens: what was written is read, and what was changed is named."""

import json

import numpy as np
import pytest

from base import files
from base.files import UserError
from base.tokenizer import Tokenizer
from image import data
from image.data import PictureData

RECORDS = [
    {"split": split, "captions": [f"a red circle {number}"], "scene": {"objects": []}}
    for number, split in enumerate(["train", "train", "train", "val", "val"])
]
TOKENS = np.arange(5 * 4).reshape(5, 4)


@pytest.fixture
def folder(tmp_path):
    """Five pictures of 2 × 2 tokens."""
    (tmp_path / "codes").write_bytes(b"a file of codes")
    tokenizer = Tokenizer.train(["a red circle"], 300)
    settings = {"seed": 7, "levels": [1]}
    data.write_folder(
        tmp_path / "data",
        *(RECORDS, TOKENS, tmp_path / "codes", tokenizer),
        codes=20,
        settings=settings,
    )
    return tmp_path / "data"


def test_what_is_written_is_read(folder):
    read = PictureData(folder)
    assert (read.grid, read.places, read.codes, read.meta["seed"]) == (2, 4, 20, 7)
    assert read.splits == {"train": 3, "val": 2}
    assert read.records("val") == RECORDS[3:] and read.records("train") == RECORDS[:3]
    assert isinstance(read.tokens("val"), np.memmap) and read.tokens("val").dtype == np.uint16
    assert (read.tokens("train") == TOKENS[:3]).all() and (read.tokens("val") == TOKENS[3:]).all()
    assert read.tokenizer.decode(read.tokenizer.encode("a red circle")) == "a red circle"
    assert read.codes_file.read_bytes() == b"a file of codes"
    with pytest.raises(UserError, match="no split 'long'.*train, val"):
        read.tokens("long")


@pytest.mark.parametrize("name", ["tokens.npy", "captions.jsonl", "codes.safetensors", "meta.json"])
def test_a_changed_file_is_named(folder, name):
    raw = bytearray((folder / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (folder / name).write_bytes(raw)
    with pytest.raises(UserError, match=name):
        PictureData(folder)


@pytest.mark.parametrize("name", ["tokens.npy", "captions.jsonl", "tokenizer.json", "meta.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(UserError, match=name):
        PictureData(folder)


def test_another_tokenizer_and_another_kind_are_refused(folder):
    other = Tokenizer.train(["blue squares, blue squares"], 310)
    (folder / "tokenizer.json").write_text(other.to_json())
    with pytest.raises(UserError, match="tokenizer.json"):
        PictureData(folder)
    meta = json.loads((folder / "meta.json").read_text())
    for change, message in (
        ({"kind": "captions"}, "kind 'captions'"),
        ({"grid": 0}, "grid 0"),
        ({"splits": {"train": 4, "val": 1}}, "tokenizer.json|other lines"),
    ):
        files.write_sealed(folder / "meta.json", {**meta, **change})
        with pytest.raises(UserError, match=message):
            PictureData(folder)


def test_arguments_that_do_not_fit_are_refused(folder):
    tokenizer = PictureData(folder).tokenizer
    mixed = [RECORDS[0], RECORDS[4], *RECORDS[1:4]]
    for records, tokens, codes in (
        (RECORDS, TOKENS, 19),
        (RECORDS[:4], TOKENS, 20),
        (mixed, TOKENS, 20),
        (RECORDS, TOKENS[:, :3], 20),
    ):
        with pytest.raises(ValueError):
            data.write_folder(
                folder,
                *(records, tokens, folder / "codes.safetensors", tokenizer),
                codes=codes,
                settings={},
            )


@pytest.mark.parametrize("objects", ["x", -1, 6, 10**9, 1.5, True])
def test_odd_plans(folder, objects):
    meta = json.loads((folder / "meta.json").read_text())
    files.write_sealed(folder / "meta.json", {**meta, "plans": objects})
    with pytest.raises(UserError, match="plans of at most 5 objects"):
        data.read_meta(folder)
