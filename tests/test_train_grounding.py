"""Training a grounder: it learns, and a run that was stopped equals a straight run."""

import json
import shutil

import pytest

pytest.importorskip("mujoco", reason="pip install -r requirements-robot.txt")

import run_policy
import train_grounding
from base.files import UserError
from tests.making.robots import Killed, killed_at, make_data, make_grounder, make_policy, same_run


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


def test_a_grounder_sees_something(robot_world, tmp_path):
    with pytest.raises(UserError, match="pixels or state"):
        make_grounder(robot_world / "data", tmp_path / "run", "--sees", "nothing")


def test_other_stills_are_refused(robot_world, tmp_path):
    shutil.copytree(robot_world / "ground", tmp_path / "run")
    other = make_data(tmp_path / "other", "--seed", "1")
    with pytest.raises(UserError, match="other stills"):
        make_grounder(other, tmp_path / "run", "--resume")


def test_it_learns_to_say_what_it_sees(robot_world, tmp_path, capsys):
    more = ["--co_train", "1", "--max_steps", "60", "--learning_rate", "5e-3", "--batch_size", "8"]
    run = make_grounder(robot_world / "data", tmp_path / "run", *more)
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    nats = [line["saying_nats"] for line in lines if "saying_nats" in line]
    assert sum(nats[-5:]) < 0.85 * sum(nats[:5])
    policy = make_policy(robot_world / "data", run, tmp_path / "policy")
    arguments = ["--checkpoint", str(policy / "best.pt"), "--episodes", "2", "--splits", "val"]
    path = tmp_path / "figures.json"
    run_policy.main([*arguments, "--say", "--json", str(path)])
    found = json.loads(path.read_text())
    assert found["splits"]["val"]["all"]["sayings"] == 2
    assert set(found["episodes"][0]["said"]) == {"text", "true"}
    run_policy.main([*arguments, "--say", "--control", "no_image"])
    assert "of 2 sayings are true" in capsys.readouterr().out


def test_a_policy_that_says_nothing_is_refused(robot_world):
    policy = str(robot_world / "policy" / "best.pt")
    with pytest.raises(UserError, match="--co_train"):
        run_policy.main(["--checkpoint", policy, "--episodes", "1", "--say"])


def test_meta_world_has_nothing_to_say(metaworld_robot, tmp_path):
    with pytest.raises(UserError, match="leave out --co_train"):
        make_grounder(metaworld_robot / "data", tmp_path / "run", "--co_train", "1")


def test_the_words_that_it_says_are_no_flag(robot_world, tmp_path):
    with pytest.raises(UserError, match="the flag --sayings"):
        make_grounder(robot_world / "data", tmp_path / "run", "--sayings", "20")
