"""Checksums: a changed tensor, a changed value and a compressed archive are named."""

import zipfile

import pytest
import torch

from base.files import UserError
from loop import checksums

CONTENT = {"kind": "text", "weights": {"a": torch.ones(2), "b": torch.zeros(3)}, "step": 4}


def sealed(content: dict) -> dict:
    return {**content, "format": 1, "checksums": checksums.digests(content)}


def test_leaves_hold_every_value_and_length():
    assert list(checksums.leaves({"a": [1, "x"]}, "top")) == [
        ("top", 1),
        ("top/a", 2),
        ("top/a/0", 1),
        ("top/a/1", "x"),
    ]


def test_a_digest_covers_type_shape_and_bytes():
    tensor = torch.arange(4)
    others = [tensor.view(2, 2), tensor.int(), tensor + 1]
    assert checksums.digest(tensor) == checksums.digest(tensor.clone())
    assert checksums.digest(tensor) not in {checksums.digest(other) for other in others}


@pytest.mark.parametrize(
    "change, name",
    [
        ({"weights": {**CONTENT["weights"], "a": torch.zeros(2)}}, "weights/a"),
        ({"step": 5}, "step .plain values."),
        ({"extra": 1}, "extra"),
        ({"checksums": 3}, "kind"),
    ],
)
def test_a_change_is_named(change, name):
    checksums.check(sealed(CONTENT), "x.pt", "copy it")
    with pytest.raises(UserError, match=rf"x.pt, in which .* parts were changed \({name}"):
        checksums.check(sealed(CONTENT) | change, "x.pt", "copy it")


def test_archives(tmp_path):
    path = tmp_path / "x.pt"
    torch.save(CONTENT, path)
    checksums.check_archive(path, "copy it")
    checksums.check_archive(path, "copy it", tensors=True)
    raw = path.read_bytes()
    index = raw.index(torch.ones(2).numpy().tobytes())
    path.write_bytes(raw[:index] + b"\xff" + raw[index + 1 :])
    checksums.check_archive(path, "copy it")  # the tensors are left to their SHA-256
    with pytest.raises(UserError, match="damaged or truncated"):
        checksums.check_archive(path, "copy it", tensors=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"0" * 1000)
    with pytest.raises(UserError, match="compressed records"):
        checksums.check_archive(path, "copy it")
