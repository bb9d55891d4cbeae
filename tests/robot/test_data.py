"""Robot data: vectors of things, batches that are functions of the step, damage that is refused."""

import shutil

import numpy as np
import pytest

from base.config import TrainConfig
from base.errors import UserError
from robot import data, hearing, stills
from robot.hearing import Hearing


def test_things_survive_their_vector():
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 2, (8, len(stills.KINDS))).astype(np.uint8)
    kinds[0, 0], kinds[6:] = 1, 0
    places = rng.normal(size=(8, 3)).astype(np.float32)
    again, where, real = data.split_things(data.things_vector(kinds, places)[None])
    assert (again[0] == kinds).all() and (where[0] == places).all()
    assert (real[0] == (kinds.sum(1) > 0)).all()


def batches(folder, **more) -> data.StillBatches:
    robot_data = data.RobotData(folder)
    cfg = TrainConfig(batch_size=6, accumulate=2, seed=3)
    return data.StillBatches(
        robot_data, np.arange(20), cfg, "state", Hearing(more.get("unknown", 0.0))
    )


def test_a_batch_is_a_function_of_the_step(robot_world):
    first, again = batches(robot_world / "data")(4), batches(robot_world / "data")(4)
    assert len(first) == 2
    for one, other in zip(first, again, strict=True):
        assert one["tokens"].shape == (9, 24) and one["weight"] == 9
        assert one["seen"]["kinds"].shape == (3, 8, len(stills.KINDS))
        for name in ("tokens", "take", "put", "index"):
            assert (one[name] == other[name]).all()
    other = batches(robot_world / "data")(5)
    assert (other[0]["tokens"] != first[0]["tokens"]).any()


def test_function_words_are_hidden_and_nouns_are_not(robot_world):
    source = batches(robot_world / "data", unknown=0.9)
    numbers = np.arange(12)
    plain = source.batch(numbers)["tokens"].numpy()
    hidden = source.batch(numbers, np.random.default_rng(0))["tokens"].numpy()
    tokenizer = source.data.tokenizer
    nouns = hearing.noun_ids(tokenizer)
    changed = plain != hidden
    assert (hidden[changed] == tokenizer.unk).all()
    assert not nouns[plain[changed]].any()
    words = (plain != tokenizer.pad) & ~nouns[plain]
    assert 0.8 < changed[words].mean() < 1


def test_a_control_hears_no_word(robot_world):
    source = batches(robot_world / "data", unknown=1.0)
    plain = batches(robot_world / "data").batch(np.arange(3))["tokens"].numpy()
    hidden = source.batch(np.arange(3))["tokens"].numpy()
    tokenizer = source.data.tokenizer
    assert ((hidden == tokenizer.unk) == (plain != tokenizer.pad)).all()


def test_damage_is_refused(robot_world, tmp_path):
    folder = shutil.copytree(robot_world / "data", tmp_path / "data")
    path = folder / "stills" / "take.npy"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="take.npy"):
        data.RobotData(folder)


def test_images_are_asked_for_in_one_line(robot_world):
    with pytest.raises(UserError, match="--sees state"):
        data.RobotData(robot_world / "data").need_images()
