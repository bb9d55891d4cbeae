"""Training a head: all four run, a killed run equals a straight run, other kinds are refused."""

import pytest
from PIL import Image

pytest.importorskip("mujoco", reason="pip install -r requirements-robot.txt")

import generate_caption
import run_policy
import train_policy
from base.config import HEADS
from base.files import UserError
from tests.making.robots import Killed, killed_at, make_data, make_policy, same_run


@pytest.mark.parametrize("head", HEADS)
def test_every_head_trains_and_acts(robot_world, tmp_path, head, capsys):
    data, ground = robot_world / "data", robot_world / "ground"
    run = make_policy(data, ground, tmp_path / "run", "--head", head)
    assert f"--checkpoint {run / 'best.pt'}" in capsys.readouterr().out
    run_policy.main(["--checkpoint", str(run / "best.pt"), "--episodes", "1", "--splits", "val"])
    assert "| val | all | 1 |" in capsys.readouterr().out


def test_a_killed_run_equals_a_straight_run(robot_world, tmp_path, monkeypatch):
    data, ground = robot_world / "data", robot_world / "ground"
    killed_at(3, monkeypatch, train_policy.acting)
    with pytest.raises(Killed):
        make_policy(data, ground, tmp_path / "run")
    monkeypatch.undo()
    make_policy(data, ground, tmp_path / "run", "--resume")
    same_run(robot_world / "policy", tmp_path / "run")


def test_other_data_are_refused(robot_world, tmp_path):
    other = make_data(tmp_path / "other", "--seed", "1")
    with pytest.raises(UserError, match="a run in"):
        make_policy(other, robot_world / "ground", robot_world / "policy")


def test_a_policy_writes_no_captions(robot_world, tmp_path):
    checkpoint, image = str(robot_world / "policy" / "best.pt"), tmp_path / "image.png"
    Image.new("RGB", (32, 32)).save(image)
    with pytest.raises(UserError, match="kind 'policy'"):
        generate_caption.main(["--checkpoint", checkpoint, "--image", str(image)])


def test_a_caption_is_no_grounding(robot_world, captioner, tmp_path):
    arguments = ["--data_dir", str(robot_world / "data"), "--out", str(tmp_path / "run")]
    with pytest.raises(UserError, match="kind 'caption'"):
        train_policy.main([*arguments, "--grounding", str(captioner)])
