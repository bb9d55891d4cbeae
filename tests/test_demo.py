"""The demo, from end to end with small numbers and a small model."""

import importlib
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

import demo
from base.files import UserError

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

    def stage(words):
        script = Path(words[1]).stem
        if script == "prep_caption_synthetic":
            return subprocess.run(words)
        status = importlib.import_module(script).main(words[2:] + SMALL[script])
        return subprocess.CompletedProcess(words, status or 0)

    monkeypatch.setattr(demo, "subprocess", SimpleNamespace(run=stage))
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
    assert "--resume" in demo.commands(demo.Demo(out=str(out)))[1]  # a second demo continues


def test_the_demo_needs_some_images():
    with pytest.raises(UserError, match="--num_train 5"):
        demo.main(["--num_train", "5"])
