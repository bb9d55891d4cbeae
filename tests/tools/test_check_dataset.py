"""The command: what a dataset holds and status 0, its faults and status 1, one line and status 2."""

import json
import subprocess
import sys

from robot import layout
from tests.making.demonstrations import record
from tests.making.sources import ROOT
from tools import check_dataset


def test_a_clean_dataset_and_its_faults(tmp_path, capsys):
    folder = record(tmp_path / "data")
    assert check_dataset.main([str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "4 episodes, 16 frames, 10 per second" and lines[-1] == "no faults"
    assert "feature observation.images.front: image 6 × 8 × 3" in lines
    assert any(line.startswith("tasks 4: 'pick the red cube', ") for line in lines)
    info = json.loads((folder / layout.INFO).read_text())
    (folder / layout.INFO).write_text(json.dumps({**info, "total_frames": 3, "total_tasks": 9}))
    assert check_dataset.main([str(folder), "--show", "1"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[1:] == ["and 2 more: give --show 3", "3 faults"]


def test_another_folder_is_one_line_and_status_2(tmp_path):
    command = [sys.executable, "-m", "tools.check_dataset", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.count("\n") == 1 and "a folder with a LeRobot dataset v3.0" in done.stderr
