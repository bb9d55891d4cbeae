"""The tool that compares both sides on few data: a small comparison, killed, resumed, refused."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

import train
from base.files import UserError
from tests.making.corpus import make_data
from tools import few_data, few_runs

SMALL = {
    "unique_tokens": "200,400",
    "trials": "0:0.1,0.2:0.1",
    "passes": 2,
    "eval_documents": 3,
    "draws": 1,
    "d_model": 16,
    "heads": 2,
    "layers": 1,
    "max_length": 24,
    "batch_size": 4,
    "warmup_steps": 2,
    "device": "cpu",
    "threads": 1,
}


def words(data, out, **settings) -> list[str]:
    every = {"data_dir": data, "out": out, **SMALL, **settings}
    return [word for name, value in every.items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("few") / "data", val_fraction=0.2)


@pytest.fixture
def here(monkeypatch):
    """Trains in this process: starting another takes longer than these trainings."""
    monkeypatch.setattr(few_runs, "run", lambda words: train.main(words[2:]) or 0)


def test_a_comparison_and_its_second_start(here, data_dir, tmp_path, capsys, monkeypatch):
    arguments = words(data_dir, tmp_path / "runs", json=tmp_path / "few.json")
    few_data.main([*arguments, "--picture", str(tmp_path / "few.png")])
    said = capsys.readouterr()
    assert "8 runs, 0 finished; the others take at most" in said.err
    tables = said.out[said.out.index("| tokens") :].splitlines()
    rows = [line.split(" | ") for line in tables[2:10]]
    assert [row[1] for row in rows] == 2 * ["diffusion", "diffusion", "ar", "ar"]
    assert sum(row[3].startswith("**") for row in rows) == 4
    assert tables[11].startswith("| tokens | documents | diffusion | twin | gap")
    found = json.loads((tmp_path / "few.json").read_text())
    assert len(found["runs"]) == 8 and len(found["gaps"]) == 2
    for run in found["runs"]:
        assert run["tokens"] <= run["unique_tokens"]
        # The last, incomplete batch of a pass is left out, so passes by tokens are near 2.
        assert run["passes_run"] == pytest.approx(2, abs=0.5) and run["passes"][0] < 1
    assert all(gap["unseen"] for gap in found["gaps"])
    assert (tmp_path / "few.png").stat().st_size > 10_000
    # The second start trains nothing and says the same.
    monkeypatch.setattr(few_runs, "run", lambda words: 1)
    few_data.main(arguments)
    again = capsys.readouterr()
    assert "8 runs, 8 finished" in again.err and "\n".join(tables) == again.out.strip("\n")


@pytest.mark.posix
def test_killed_and_resumed_equals_uninterrupted(data_dir, tmp_path, monkeypatch):
    """A real process, killed in mid-run."""
    short = {"unique_tokens": "200", "trials": "0.2:0.1", "passes": 12, "patience": 0}

    def kill(command: list[str]) -> int:
        log = Path(command[command.index("--out") + 1]) / "log.jsonl"
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (log.exists() and log.read_text().count("val_") > 12):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        return process.wait()

    arguments = words(data_dir, tmp_path / "killed", json=tmp_path / "killed.json", **short)
    monkeypatch.setattr(few_runs, "run", kill)
    with pytest.raises(UserError, match="train.py with status -9"):
        few_data.main(arguments)
    monkeypatch.setattr(few_runs, "run", lambda words: train.main(words[2:]) or 0)
    few_data.main(arguments)
    few_data.main(words(data_dir, tmp_path / "straight", json=tmp_path / "straight.json", **short))
    one, two = (
        json.loads((tmp_path / f"{name}.json").read_text()) for name in ("killed", "straight")
    )
    assert one["gaps"] == two["gaps"]
    for mine, other in zip(one["runs"], two["runs"], strict=True):
        assert mine | {"run": ""} == other | {"run": ""}


def test_refusals_before_the_first_step(data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(few_runs, "run", lambda words: 1 / 0)
    for settings, message in (
        ({"trials": "0.1"}, "found --trials 0.1; expected pairs of dropout"),
        ({"trials": "1:0.1"}, "below 1"),
        ({"trials": "a:b"}, "for example 0:0.1,0.1:0.5"),
        ({"unique_tokens": "many"}, "found --unique_tokens many"),
        ({"unique_tokens": "1"}, "at least one whole document"),
        ({"unique_tokens": "1000000"}, "tokens for training in .*; expected at least 1,000,000"),
        ({"passes": 0}, "--passes 0"),
        ({"heads": 3}, "channels per head"),
        ({"device": "tpu"}, "auto or one of cpu"),
        ({"data_dir": tmp_path / "nowhere"}, "run data_prep.py"),
        ({"picture": f"{__file__}/few.png"}, "test_few_data.py"),
    ):
        with pytest.raises(UserError, match=message) as error:
            few_data.main(words(data_dir, tmp_path / "runs", **settings))
        assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()
