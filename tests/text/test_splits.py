"""A split on disk: damage is named."""

import pytest

from base.files import UserError
from tests.making.corpus import make_data
from text.data import TextData


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data") / "data")


@pytest.mark.parametrize(
    "name, damage, message",
    [
        ("meta.json", lambda raw: raw[:20], "not JSON"),
        (
            "meta.json",
            lambda raw: raw.replace(b'"format": 1', b'"format": 9'),
            "meta.json, which was changed",
        ),
        ("train.npy", lambda raw: raw[:200], "damaged or truncated"),
        ("train.npy", lambda raw: b"x" + raw, "damaged or truncated"),
        (
            "train_offsets.npy",
            lambda raw: raw[:-8] + b"\0" * 8,
            "train_offsets.npy, which was changed",
        ),
        (
            "tokenizer.json",
            lambda raw: raw.replace(b'"add_prefix_space":false', b'"add_prefix_space":true'),
            "tokenizer.json, which is damaged",
        ),
        ("tokenizer.json", lambda raw: None, "no .*tokenizer.json"),
    ],
)
def test_damaged_folders_are_named(folder, tmp_path, name, damage, message):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        raw = damage(path.read_bytes()) if path.name == name else path.read_bytes()
        if raw is not None:
            (copy / path.name).write_bytes(raw)
    with pytest.raises(UserError, match=message):
        TextData(copy, "train", 32)
