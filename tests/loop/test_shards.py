"""The saved state of split weights: a folder from elsewhere is read without trust."""

import io
import os
import pickle

import pytest
import torch
from torch.distributed.checkpoint.metadata import Metadata

from base.files import UserError
from loop import shards


class Danger:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_hostile_folder_of_shards_is_refused(tmp_path):
    """A pickle that would run a command, a pickle of anything but descriptions of tensors, a folder elsewhere, none at all."""
    model = torch.nn.Linear(2, 2)
    resume = {"shards": "resume_000005", "optimizer": []}
    with pytest.raises(UserError, match="no .*resume_000005"):
        shards.whole_or_split(resume, tmp_path, model, [])
    folder = tmp_path / "resume_000005"
    folder.mkdir()
    danger = Danger(tmp_path / "ran")
    for value in (danger, io.StringIO("x"), {"a": 1}, Metadata({"weights/weight": danger})):
        (folder / ".metadata").write_bytes(pickle.dumps(value))
        with pytest.raises(UserError, match="damaged"):
            shards.whole_or_split(resume, tmp_path, model, [])
    assert not danger.path.exists()
    with pytest.raises(UserError, match="next to it"):
        shards.whole_or_split(resume | {"shards": "../elsewhere"}, tmp_path, model, [])
