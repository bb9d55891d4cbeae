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
    assert any(line.startswith("| failed against done |") for line in lines)
    assert "unknown: median, AUC" in lines[0] and "nats" in lines[0]
    assert lines[2].startswith("| val | 2 |") and lines[3].startswith("| val no_words | 2 |")
    assert lines[3].split("|")[-2].strip().startswith("1, 1.00 [")  # every word is unknown
    assert (tmp_path / "doubt.png").stat().st_size > 1000


def episode(case: str, end: bool, nats: float, later: float, control: str = "none") -> dict:
    first, mean = {"nats": nats, "unknown": 0.0}, {"nats": later, "unknown": 0.0}
    return {"case": case, "control": control, "end": end, "doubt": {"first": first, "mean": mean}}


def test_failures_are_compared_within_a_case_and_over_all():
    some = [
        episode("val", True, 1, 9),
        episode("val", False, 2, 1),
        episode("twins", True, 3, 9),
        episode("val no_words", False, 4, 1, "no_words"),
    ]
    found = {row[0]: row for row in doubt.failures(some, "first")[1:]}
    assert list(found) == ["val", "all without a control", "all"]  # the others have one side
    assert found["val"][3].startswith("1.00 [") and found["all"][1:3] == ["2", "2"]
    assert found["all without a control"][3].startswith("0.50 [")
    assert found["all"][3].startswith("0.75 [") and found["all"][4].startswith("0.50 [")
    assert doubt.failures(some, "mean")[1][3].startswith("0.00 [")
    table = doubt.detection(some, "first")
    assert table[1][3] == "1.5, –" and table[2][3].startswith("3, 1.00 [")


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "figures.json"
    path.write_text(json.dumps({"settings": {"control": "none"}}))
    with pytest.raises(UserError, match="without episodes"):
        doubt.main([str(path)])
