"""What counts as a difference between two checkouts."""

import re
import sys

import numpy as np
import pytest
import torch

from base.files import UserError
from tests.making.sources import COMMANDS, ROOT
from tools import compare


def test_the_same_bits_are_no_difference():
    weights = {"a": torch.tensor([1.0, float("nan")]), "b": [1, (2.5, "x")], "c": np.arange(3)}
    assert compare.differences(weights, {**weights}) == []


@pytest.mark.parametrize(
    "first, second, place",
    [
        ({"w": torch.tensor([0.0])}, {"w": torch.tensor([-0.0])}, "/w"),
        ({"w": torch.zeros(2)}, {"w": torch.zeros(2, dtype=torch.float64)}, "/w"),
        ({"w": np.zeros(2)}, {"w": np.zeros((2, 1))}, "/w"),
        ({"step": 3}, {"step": 4}, "/step"),
        ({"rows": [1, 2]}, {"rows": [1, 3]}, "/rows/1"),
        ({"rows": [1, 2]}, {"rows": [1]}, "/rows of 2 and 1 entries"),
        ({"a": 1}, {}, "/a on one side only"),
    ],
)
def test_a_difference_is_named_by_its_place(first, second, place):
    assert compare.differences(first, second) == [place]


def test_times_and_revisions_may_differ():
    assert compare.differences({"git": "a", "seconds": 1.0}, {"git": "b", "seconds": 2.0}) == []


def test_every_line_is_a_command_of_this_checkout():
    lines = re.sub(r"\n +", " ", compare.COMMANDS).strip().splitlines()
    names = {line.split()[0] for line in lines}
    known = {f"{name}.py" for name in COMMANDS} | {name.split(".")[-1] for name in COMMANDS}
    assert names <= known
    python, path, *_ = compare.command_of(ROOT, "train_encoder --out x")
    assert python == sys.executable and path.endswith("tools/train_encoder.py")


def test_files_are_compared(tmp_path, capsys, monkeypatch):
    """Two runs that are there: an equal file, a changed file, and a file on one side."""
    for name, value in (("before", 1.0), ("after", 2.0)):
        (tmp_path / name).mkdir()
        torch.save({"w": torch.tensor(value)}, tmp_path / name / "last.pt")
        np.save(tmp_path / name / "train.npy", np.arange(3))
    np.savez(tmp_path / "after" / "golden.npz", a=np.arange(2))
    words = [str(ROOT), str(ROOT), "--out", str(tmp_path), "--keep"]
    assert compare.main(words) == 1
    printed = capsys.readouterr().out
    assert "| train.npy | bit for bit |" in printed and "| last.pt | /w |" in printed
    assert "| golden.npz | on one side only |" in printed
    with pytest.raises(UserError, match="--keep"):
        compare.main(words[:-1])
