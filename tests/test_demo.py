"""The demo, from end to end with small numbers and a small model."""

import importlib
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

import demo
from base.files import UserError
from loop import commands

# The last of two equal flags counts: the demo's own flags are read, then made small.
SMALL = {
    "train_captioning": [
        "--d_model",
        "16",
        "--heads",
        "2",
        "--layers",
        "1",
        "--batch_size",
        "16",
        "--device",
        "cpu",
    ],
    "evaluate": ["--step_counts", "1,2", "--device", "cpu"],
    "generate_caption": ["--device", "cpu"],
}


def test_the_demo(tmp_path, capfd, monkeypatch):
    """The first stage is a process of its own, as all are; the others run here, which is faster."""
    out = tmp_path / "demo"

    def stage(args):
        script, words = Path(args[1]).stem, args
        if script == "prep_caption_synthetic":
            return subprocess.run(words)
        status = importlib.import_module(script).main(words[2:] + SMALL[script])
        return subprocess.CompletedProcess(words, status or 0)

    monkeypatch.setattr(commands, "subprocess", SimpleNamespace(run=stage))
    flags = ["--out", str(out), "--num_train", "30", "--num_val", "10", "--max_steps", "10"]
    demo.main(flags)
    found = json.loads((out / "results.json").read_text())
    assert found["seconds"] > 0 and 0 < found["peak_memory_gb"] < 4
    for split in ("val", "held_pair"):
        assert 0 <= found["splits"][split]["truthful"] <= 1
        assert 0 <= found["splits"][split]["set_exact"] <= 1
    text = capfd.readouterr().out
    assert f"look at {out / 'index.html'}" in text and "| held_pair | 10 |" in text
    assert text.count("$ python ") == 4
    assert (out / "index.html").read_text().count("data:image/jpeg") >= 10
    assert (out / "steps.png").exists()
    again = demo.train(demo.Demo(out=str(out)), out / "data", out / "captioner", minutes=2.0)
    assert "--resume" in again and "--minutes" not in again  # a second demo continues


def test_the_demo_needs_some_images():
    with pytest.raises(UserError, match="--num_train 5"):
        demo.main(["--num_train", "5"])


def test_minutes_are_shared_by_the_stages():
    """The training gets what drawing and scoring leave."""
    timed = demo.Demo(minutes=5.0)
    assert demo.time_to_train(timed, 60.0) == pytest.approx(5 - 1 - demo.SCORING)
    assert demo.time_to_train(demo.Demo(), 60.0) == 0
    command = demo.train(timed, Path("data"), Path("run"), minutes=3.5)
    assert command[command.index("--minutes") + 1] == "3.50" and "--max_steps" not in command
    with pytest.raises(UserError, match="--minutes 5, of which drawing and scoring take"):
        demo.time_to_train(timed, 300.0)
