"""What a policy learns from: our folder with trained eyes, or a dataset with eyes to train."""

import numpy as np
import pytest

from base.errors import UserError
from robot import sources
from robot.sources import ActingStart
from tests.making import demonstrations


def test_our_folder(robot_world):
    start = ActingStart(
        data_dir=str(robot_world / "data"), grounding=str(robot_world / "ground" / "best.pt")
    )
    source = sources.open_source(start)
    scaling, states = source.scaled()
    assert source.eyes is not None and source.cartesian
    assert (states.numpy() == source.watcher.episodes.states).all()
    assert scaling.low.tolist() == [-1] * 4
    assert source.meta["fingerprint"]


def test_a_strangers_dataset(tmp_path):
    folder = demonstrations.record(tmp_path / "toy")
    source = sources.open_source(ActingStart(dataset=str(folder), image_side=16))
    _, states = source.scaled()
    assert source.eyes is None and not source.cartesian
    assert np.allclose(states.mean(0), 0, atol=1e-5)
    images = source.watcher.seen(np.array([0, 3]))["images"]
    assert images.shape == (2, 1, 16, 16, 3)
    # Other actions are another dataset.
    other = demonstrations.record(tmp_path / "other", count=3)
    again = sources.open_source(ActingStart(dataset=str(other), image_side=16))
    assert again.meta["fingerprint"] != source.meta["fingerprint"]


def test_no_instruction_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(demonstrations, "TASKS", ("pick", "...", "push", "wait"))
    folder = demonstrations.record(tmp_path / "toy")
    with pytest.raises(UserError, match="without an instruction"):
        sources.open_source(ActingStart(dataset=str(folder)))
