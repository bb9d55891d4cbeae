"""Parts of a data folder, made alone and joined, are the folder that one process makes."""

import json

import pytest

import data_prep
from base.files import UserError
from tests.making.corpus import write_corpus
from text import parts


def test_parts_are_one_folder(tmp_path, monkeypatch):
    """Three parts in any order, joined by the last, are what one process writes, to the bit; each can be made again alone."""
    monkeypatch.setattr(parts, "BLOCK", 7)
    corpus = write_corpus(tmp_path / "stories.txt")
    words = ["--input", str(corpus), "--vocab_size", "300", "--val_fraction", "0.1"]
    data_prep.main([*words, "--out", str(tmp_path / "one")])
    out = tmp_path / "parts"
    for number in (2, 0):
        data_prep.main([*words, "--out", str(out), "--shard", f"{number}/3"])
        assert not (out / "meta.json").exists()
    before = (out / "part_0_of_3" / "train.npy").stat().st_mtime_ns
    data_prep.main([*words, "--out", str(out), "--shard", "0/3"])
    assert (out / "part_0_of_3" / "train.npy").stat().st_mtime_ns == before  # it was there
    damaged = out / "part_2_of_3" / "val.npy"
    good = damaged.read_bytes()
    damaged.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(UserError, match=r"part_2_of_3/val.npy.*make that part again"):
        data_prep.main([*words, "--out", str(out), "--shard", "1/3"])
    damaged.write_bytes(good)
    with pytest.raises(UserError, match="part_1_of_3 made with other settings"):
        data_prep.main([*words, "--out", str(out), "--shard", "1/3", "--seed", "1"])
    data_prep.main([*words, "--out", str(out), "--shard", "1/3"])
    one, joined = (
        json.loads((folder / "meta.json").read_text()) for folder in (tmp_path / "one", out)
    )
    assert {**one, "command": 0, "checksum": 0} == {**joined, "command": 0, "checksum": 0}
    assert one["files"] and {path.name for path in out.iterdir()} == {
        path.name for path in (tmp_path / "one").iterdir()
    }
    data_prep.main([*words, "--out", str(out), "--shard", "1/3"])  # already done
    for text in ("3/3", "1", "0/0"):
        with pytest.raises(UserError, match=f"--shard {text}"):
            data_prep.main([*words, "--out", str(out), "--shard", text])
