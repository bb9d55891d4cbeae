"""The demo, from end to end with small numbers."""

import importlib
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

import demo
from base.files import UserError


def test_the_demo(tmp_path, capfd, monkeypatch):
    """The first stage is a process of its own, as all are; the others run here, which spares three starts."""
    out = tmp_path / "demo"

    def stage(words):
        if words[1].endswith("prep_caption_synthetic.py"):
            return subprocess.run(words)
        return subprocess.CompletedProcess(
            words, importlib.import_module(Path(words[1]).stem).main(words[2:]) or 0
        )

    monkeypatch.setattr(demo, "subprocess", SimpleNamespace(run=stage))
    flags = ["--out", str(out), "--num_train", "30", "--num_val", "10", "--max_steps", "10"]
    demo.main(flags)
    found = json.loads((out / "results.json").read_text())
    assert found["seconds"] > 0 and 0 < found["peak_memory_gb"] < 4
    assert all(
        0 <= found["splits"][split][key] <= 1
        for split in ("val", "held_pair")
        for key in ("truthful", "set_exact")
    )
    text = capfd.readouterr().out
    assert (
        f"look at {out / 'index.html'}" in text
        and "| held_pair | 10 |" in text
        and text.count("$ python ") == 4
    )
    assert (out / "index.html").read_text().count("data:image/jpeg") >= 10 and (
        out / "steps.png"
    ).exists()
    assert "--resume" in demo.commands(demo.Demo(out=str(out)))[1]  # a second demo goes on
    with pytest.raises(UserError, match="--num_train 5"):
        demo.main(["--out", str(out), "--num_train", "5"])
