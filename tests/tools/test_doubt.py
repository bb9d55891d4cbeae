"""The tool that asks whether a policy knows when it does not know."""

import json

import pytest

pytest.importorskip("mujoco", reason="pip install -r requirements-robot.txt")

import run_policy
from base.files import UserError
from tools import doubt


def test_cases_and_failures_are_told_apart(robot_world, tmp_path, capsys):
    paths = []
    for control in ("none", "no_words"):
        paths.append(str(tmp_path / f"{control}.json"))
        policy = str(robot_world / "policy" / "best.pt")
        arguments = ["--checkpoint", policy, "--episodes", "2", "--splits", "val"]
        run_policy.main([*arguments, "--control", control, "--json", paths[-1]])
    capsys.readouterr()
    doubt.main([*paths, "--plot", str(tmp_path / "doubt.png")])
    lines = capsys.readouterr().out.splitlines()
    assert "unknown: median, AUC" in lines[0] and "nats" in lines[0]
    assert lines[2].startswith("| val | 2 |") and lines[3].startswith("| val no_words | 2 |")
    assert lines[3].split("|")[-2].strip() == "1.00, 1.00"  # every word is unknown
    assert (tmp_path / "doubt.png").stat().st_size > 1000


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "figures.json"
    path.write_text(json.dumps({"settings": {"control": "none"}}))
    with pytest.raises(UserError, match="without episodes"):
        doubt.main([str(path)])
