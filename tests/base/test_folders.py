"""Folders of data: the seal, and an error for every way to damage it."""

import numpy as np
import pytest

from base import files, folders
from base.files import UserError
from base.tokenizer import Tokenizer

DO = ("a folder of numbers", "make it", "make it again")


@pytest.fixture
def folder(tmp_path):
    np.save(tmp_path / "train.npy", np.arange(5))
    tokenizer = Tokenizer.train(["a red hen"] * 9, 266)
    folders.seal(tmp_path, "numbers", tokenizer, ["train.npy"], {"splits": {"train": {}}})
    return tmp_path


def test_a_sealed_folder_is_read_back(folder):
    meta = folders.read_meta(folder, "numbers", *DO)
    assert meta["splits"] == {"train": {}} and set(meta["files"]) == {"train.npy", "tokenizer.json"}
    folders.check_files(folder, meta, ("train.npy",), "make it again")
    assert folders.open_array(folder / "train.npy", "make it again").tolist() == [0, 1, 2, 3, 4]
    folders.check_tokenizer(meta["tokenizer"], meta["tokenizer"], folder)


def test_another_kind_is_refused(folder):
    with pytest.raises(UserError, match="kind 'numbers'.*expected format 1 and kind 'text'"):
        folders.read_meta(folder, "text", *DO)


def test_a_changed_array_is_named(folder):
    meta = folders.read_meta(folder, "numbers", *DO)
    np.save(folder / "train.npy", np.arange(1, 6))
    with pytest.raises(UserError, match="train.npy, which was changed"):
        folders.check_files(folder, meta, ("train.npy",), "make it again")


@pytest.mark.parametrize(
    "change",
    [{"splits": 3}, {"files": []}, {"files": {"train.npy": {"bytes": 3}}}, {"fingerprint": None}],
)
def test_another_shape_is_refused(folder, change):
    meta = files.read_sealed(folder / "meta.json", *DO[:2])
    files.write_sealed(folder / "meta.json", meta | change)
    with pytest.raises(UserError, match="of another shape"):
        folders.read_meta(folder, "numbers", *DO)


def test_objects_are_never_unpickled(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="damaged or truncated"):
        folders.open_array(tmp_path / "x.npy", "make it again")


def test_another_tokenizer_is_refused():
    with pytest.raises(UserError, match="made with tokenizer aa; expected tokenizer bb"):
        folders.check_tokenizer("aa", "bb", "data")
