"""Training a grounder: it learns, and a run that was stopped equals a straight run."""

import json
import shutil

import pytest

pytest.importorskip("mujoco", reason="pip install -r requirements-robot.txt")

import train_grounding
from base.files import UserError
from tests.making.robots import Killed, killed_at, make_data, make_grounder, same_run


def test_it_learns_a_few_stills_by_heart(robot_world, tmp_path):
    more = ["--max_steps", "60", "--learning_rate", "5e-3", "--batch_size", "8", "--unknown", "0"]
    run = make_grounder(robot_world / "data", tmp_path / "run", *more)
    losses = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in losses if "loss" in line]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_a_killed_run_equals_a_straight_run(robot_world, tmp_path, monkeypatch):
    killed_at(3, monkeypatch, train_grounding.grounding)
    with pytest.raises(Killed):
        make_grounder(robot_world / "data", tmp_path / "run")
    monkeypatch.undo()
    make_grounder(robot_world / "data", tmp_path / "run", "--resume")
    same_run(robot_world / "ground", tmp_path / "run")


def test_images_that_are_not_there(robot_world, tmp_path):
    with pytest.raises(UserError, match="without images"):
        make_grounder(robot_world / "data", tmp_path / "run", "--sees", "pixels")


def test_other_stills_are_refused(robot_world, tmp_path):
    shutil.copytree(robot_world / "ground", tmp_path / "run")
    other = make_data(tmp_path / "other", "--seed", "1")
    with pytest.raises(UserError, match="other stills"):
        make_grounder(other, tmp_path / "run", "--resume")
