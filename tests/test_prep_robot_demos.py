"""Recording demonstrations: a whole folder, the same from the same seed, held-out words left out."""

import json

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="pip install -r requirements-robot.txt")

import prep_robot_demos
from base.files import UserError
from robot import data
from robot.checking import check
from robot.episodes import Episodes
from tests.making.robots import make_data
from worlds import orders
from worlds.scenes import held_pair


def test_the_demonstrations_are_a_sound_dataset(robot_world):
    folder = robot_world / "data" / "demos"
    assert check(folder) == []
    episodes = Episodes(folder, cameras=[])
    assert len(episodes.starts) == 3 and episodes.fps == 10
    assert episodes.actions.shape[1] == 4 and episodes.states.shape[1] == 8
    assert np.abs(episodes.actions).max() <= 1


def test_training_never_says_what_is_held_out(robot_world):
    robot_data = data.RobotData(robot_world / "data")
    known = {word: number for word, number in robot_data.tokenizer.backend.get_vocab().items()}
    said = {number: word for word, number in known.items()}
    held = set(orders.wordings("pick", True))
    for row in robot_data.stills["words"].reshape(-1, 24):
        text = " ".join(said[i] for i in row if i != robot_data.tokenizer.pad)
        order = orders.read(text)
        assert "[UNK]" not in text
        if order.noun.colour and order.noun.shape:
            assert not held_pair(order.noun.colour, order.noun.shape)
        assert not any(text.startswith(wording.split(" {x}")[0] + " the") for wording in held)


def test_the_same_seed_gives_the_same_folder(robot_world, tmp_path):
    again = make_data(tmp_path / "again")
    metas = [json.loads((one / "meta.json").read_text()) for one in (robot_world / "data", again)]
    assert metas[0]["fingerprint"] == metas[1]["fingerprint"]
    for name in ("data", "meta/episodes"):
        path = f"demos/{name}/chunk-000/file-000.parquet"
        assert (robot_world / "data" / path).read_bytes() == (again / path).read_bytes()


@pytest.mark.parametrize(
    "flags, part",
    [
        (["--cameras", "front,side"], "side"),
        (["--image_side", "8"], "16 to 640"),
        (["--num_demos", "0"], "num_demos"),
    ],
)
def test_wrong_flags(tmp_path, flags, part):
    sizes = ["--num_demos", "1", "--num_stills", "10"]
    with pytest.raises(UserError, match=part):
        prep_robot_demos.main([*sizes, "--out", str(tmp_path / "out"), *flags])
    assert not (tmp_path / "out" / "meta.json").exists()


def test_a_folder_of_other_settings_is_refused(tmp_path):
    make_data(tmp_path / "data")
    with pytest.raises(UserError, match="other settings"):
        make_data(tmp_path / "data", "--seed", "1")
