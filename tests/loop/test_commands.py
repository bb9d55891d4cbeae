"""Commands of a demo: their words, how they continue, and queues that run side by side."""

import os
import signal
import sys
import threading
import time

import pytest

from loop import commands


def test_words_of_scripts_and_tools():
    assert commands.words("train.py", out="a b", resume=True, html=None, seed=0) == [
        *("train.py", "--out", "a b", "--resume", "--seed", "0")
    ]
    tool = commands.words("tools.table", seed=1)
    assert commands.said(tool) == "python -m tools.table --seed 1"
    assert commands.script_of(tool) == "tools.table"
    assert commands.started(tool)["cwd"] == commands.ROOT


def test_a_stopped_training_continues(tmp_path):
    command = commands.words("train_policy.py", out=tmp_path, minutes=2.5, seed=1)
    assert commands.resumed(command) == command
    (tmp_path / "resume.pt").touch()
    # Its own number of steps holds: minutes would add steps.
    expected = ["train_policy.py", "--out", str(tmp_path), "--seed", "1", "--resume"]
    assert commands.resumed(command) == expected
    other = commands.words("run_policy.py", out=tmp_path)
    assert commands.resumed(other) == other


def script(path, code: str) -> list[str]:
    """A command that runs a file of code."""
    path.write_text(code)
    return [str(path)]


def test_queues_run_at_the_same_time(tmp_path, monkeypatch, capsys):
    """Each queue waits for a file that the other writes: one after the other would never end."""
    monkeypatch.setattr(commands, "PAUSE", 0.01)
    wait = "import pathlib, time\nwhile not pathlib.Path(r'{}').exists(): time.sleep(0.01)\n"
    write = "import pathlib\npathlib.Path(r'{}').touch()\nprint('wrote')\n"
    a, b = tmp_path / "a", tmp_path / "b"
    queues = {
        "one": [
            script(tmp_path / "1.py", write.format(a)),
            script(tmp_path / "2.py", wait.format(b)),
        ],
        "two": [script(tmp_path / "3.py", wait.format(a) + write.format(b))],
    }
    commands.run_side_by_side(queues, tmp_path / "logs")
    assert (tmp_path / "logs" / "two.txt").read_text().strip() == "wrote"
    assert capsys.readouterr().out.count("$ python ") == 3


def test_a_failure_stops_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(commands, "PAUSE", 0.01)
    long = script(tmp_path / "long.py", "import time; time.sleep(60)")
    bad = script(tmp_path / "bad.py", "import sys; sys.exit('error: found x')")
    clock = time.perf_counter()
    with pytest.raises(SystemExit) as stop:
        commands.run_side_by_side({"one": [long], "two": [bad, long]}, tmp_path)
    assert stop.value.code == 1 and time.perf_counter() - clock < 30
    assert "error: found x" in capsys.readouterr().err


@pytest.mark.posix
def test_sigterm_stops_what_was_started(tmp_path, monkeypatch):
    """As `kill` sends it, to the demo alone."""
    monkeypatch.setattr(commands, "PAUSE", 0.01)
    started = []
    begin = commands.begin

    def watched(command, path):
        started.append(begin(command, path))
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        return started[0]

    monkeypatch.setattr(commands, "begin", watched)
    long = script(tmp_path / "long.py", "import time; time.sleep(60)")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        commands.run_side_by_side({"one": [long]}, tmp_path)
    assert stop.value.code == 143 and signal.getsignal(signal.SIGTERM) is before
    assert started[0].process.poll() is not None


def test_a_command_that_fails_ends_with_its_status(tmp_path, capfd):
    assert commands.started(["train.py"])["args"][0] == sys.executable
    with pytest.raises(SystemExit) as stop:
        commands.run(script(tmp_path / "bad.py", "raise SystemExit(3)"))
    assert stop.value.code == 3 and "bad.py" in capfd.readouterr().out


def test_a_path_means_the_same_for_a_tool(tmp_path, monkeypatch):
    monkeypatch.chdir(commands.ROOT)
    assert commands.placed("runs/x").as_posix() == "runs/x"
    monkeypatch.chdir(tmp_path)
    assert commands.placed("runs/x") == tmp_path / "runs" / "x"
