"""The stages of the robot demo: real commands, which continue where they were stopped."""

import importlib
from pathlib import Path

import pytest

from robot import stages


@pytest.mark.parametrize("quick", [True, False])
def test_every_stage_is_a_command_with_its_flags(tmp_path, quick):
    commands = stages.commands(tmp_path, seed=3, quick=quick, page=True)
    names = [command[0] for command in commands]
    assert names == [
        "prep_robot_demos.py",
        "train_grounding.py",
        "train_policy.py",
        "run_policy.py",
    ]
    for script, *words in commands:
        module = importlib.import_module(Path(script).stem)
        assert module.parse_args(words).seed in (3, 4)
    # What a stage writes, the next reads.
    written = {command[command.index("--out") + 1] for command in commands[:3]}
    assert str(tmp_path / "policy" / "best.pt") in commands[3]
    assert {str(tmp_path / name) for name in ("data", "ground", "policy")} == written


def test_without_opengl_there_is_no_page(tmp_path):
    *_, act = stages.commands(tmp_path, seed=0, quick=True, page=False)
    assert "--html" not in act
