"""Driving the simulated table and a recording; everything that is wrong is one line."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="pip install -r requirements-robot.txt")

import drive_robot
from base import limits
from base.errors import UserError
from tests.making.sources import ROOT


def run(world, *more):
    drive_robot.main(["--checkpoint", str(world / "policy" / "best.pt"), *more])


def test_episodes_on_a_virtual_clock(robot_world, tmp_path, capsys):
    outputs = []
    for name in ("a.json", "b.json"):
        more = ["--json", str(tmp_path / name), "--log", str(tmp_path / "log.jsonl")]
        run(robot_world, "--virtual", "--episodes", "2", "--seconds", "2", "--latency", "50", *more)
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] and "done at the end" in outputs[0]
    kept = json.loads((tmp_path / "a.json").read_text())
    assert len(kept["episodes"]) == 2 and kept["settings"]["latency"] == 50.0
    assert kept["episodes"][0]["counts"]["chunks"] > 2
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["event"] == "over"


def test_a_camera_that_stays_away_is_one_line(robot_world, capsys):
    trouble = ["--lose_camera", "--fault_seconds", "0", "--patience", "2"]
    with pytest.raises(UserError, match="no frame for 2 s .the camera is gone"):
        run(robot_world, "--virtual", *trouble)
    assert "hold_no_frame" in capsys.readouterr().out


def test_a_recording_is_compared_and_moves_nothing(robot_world, tmp_path, capsys):
    rng = np.random.default_rng(0)
    kinds = np.zeros((20, 8, 17), np.uint8)
    parts = {"things": rng.random((20, 3, 3)), "kinds": kinds, "rate": 10, "robot": "table"}
    parts |= {"state": rng.random((20, 8)), "action": np.zeros((20, 4))}
    np.savez(tmp_path / "episode.npz", **parts)
    more = ["--robot", "replay", "--replay", str(tmp_path / "episode.npz"), "--virtual"]
    run(robot_world, *more, "--instruction", "lift the star")
    assert "differ from the recorded" in capsys.readouterr().out
    with pytest.raises(UserError, match="no order"):
        run(robot_world, *more)


def test_an_episode_of_a_dataset_is_compared_with_its_own_order(robot_world, capsys):
    demos = str(robot_world / "data" / "demos")
    run(robot_world, "--robot", "replay", "--replay", demos, "--episode", "1", "--virtual")
    assert "differ from the recorded" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags, part",
    [
        (["--robot", "crane"], "table, so101, replay"),
        (["--limits", "missing.json"], "missing.json"),
        (["--bundle", "x"], "one of --bundle, --checkpoint, --server"),
        (["--robot", "replay"], "--replay FOLDER"),
        (["--split", "valley"], "one of val"),
        (["--speed", "2"], "at most 1"),
        (["--checkpoint", "missing.pt"], "train_policy.py"),
    ],
)
def test_wrong_flags(robot_world, flags, part):
    with pytest.raises(UserError, match=part):
        run(robot_world, "--virtual", *flags)


def test_the_limits_of_another_robot_and_a_policy_of_another_robot(robot_world, tmp_path):
    values = json.loads((limits.FOLDER / "table.json").read_text(encoding="utf-8"))
    (tmp_path / "other.json").write_text(json.dumps(values | {"robot": "crane"}))
    with pytest.raises(UserError, match="the limits of 'crane'; expected the limits of 'table'"):
        run(robot_world, "--limits", str(tmp_path / "other.json"))
    values["names"], values["units"] = values["names"][:3], values["units"][:3]
    values["low"], values["high"] = values["low"][:3], values["high"][:3]
    (tmp_path / "three.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match="found .* numbers"):
        run(robot_world, "--virtual", "--limits", str(tmp_path / "three.json"))


def test_away_from_the_checkout_it_says_what_is_missing(tmp_path):
    """As in a bundle: the script and base/ alone, without torch."""
    shutil.copy(ROOT / "drive_robot.py", tmp_path)
    shutil.copytree(ROOT / "base", tmp_path / "base")
    code = "import sys; sys.modules['torch'] = None; import drive_robot; from base import files; "
    code += "sys.argv[1:] = ['--checkpoint', 'x.pt']; files.run(drive_robot.main)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: found --checkpoint without torch; expected torch")
    code = "import sys; sys.modules['torch'] = None; import drive_robot as d; from base import limits; "
    code += "own = d.Driving(bundle='x'); d.open_robot(own, limits.read('table'), *[None] * 5)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert "a simulated table in a bundle; expected the room worlds/" in done.stderr


@pytest.mark.posix
def test_in_real_time_ctrl_c_stops_the_arm_and_ends_cleanly(robot_world):
    command = [
        sys.executable,
        str(ROOT / "drive_robot.py"),
        "--status_port",
        "0",
        "--seconds",
        "60",
    ]
    command += ["--checkpoint", str(robot_world / "policy" / "best.pt"), "--dry_run"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stderr.readline().startswith("figures at http://127.0.0.1:")
        process.stdout.readline()  # the first command: it runs
        os.kill(process.pid, signal.SIGINT)
        written, errors = process.communicate(timeout=120)
    assert process.returncode == 0 and "stopped: SIGINT" in written and errors == ""


def test_a_bundle_of_a_captioner_is_refused():
    with pytest.raises(UserError, match="a bundle of kind 'caption'; expected a policy's bundle"):
        drive_robot.main(["--bundle", str(ROOT / "assets" / "captioner"), "--virtual"])
