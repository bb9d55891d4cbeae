"""Every script on Windows, as far as Linux can simulate it: tests/making/as_on_windows says how."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.making.sources import COMMANDS

ROOT = Path(__file__).parent.parent
SIMULATION = ROOT / "tests" / "making" / "as_on_windows"
STORIES = "".join(f"Tim had {n} kites. He saw a dög.\n<|endoftext|>\n" for n in range(60))
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="it is simulated on Linux")


def as_on_windows(*words: str) -> subprocess.CompletedProcess:
    """Run Python with these words in the simulation. Its status must be 0."""
    there = {**os.environ, "PYTHONPATH": str(SIMULATION), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=ROOT, env=there, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return done


@on_linux
def test_the_simulation_is_one(tmp_path):
    code = (
        "import os\n"
        f"file = open({str(tmp_path / 'x')!r}, 'w'); file.write('é\\n'); file.flush()\n"
        "for call in (lambda: os.open('.', os.O_RDONLY), lambda: os.unlink(file.name)):\n"
        "    try: call()\n"
        "    except PermissionError: print('refused')\n"
    )
    assert as_on_windows("-c", code).stdout == "refused\nrefused\n"
    assert (tmp_path / "x").read_bytes() == "é\r\n".encode("cp1252")


@on_linux
def test_every_script_starts():
    """In one process: importing torch once is enough."""
    code = (
        f"import importlib, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        f"for name in {COMMANDS!r}:\n"
        "    try: importlib.import_module(name).main(['--help'])\n"
        "    except SystemExit as stop: assert not stop.code, name\n"
    )
    assert as_on_windows("-c", code).stdout.count("usage") >= len(COMMANDS)


@on_linux
def test_the_shipped_bundle_captions_an_image(tmp_path):
    out = tmp_path / "captions.jsonl"
    words = ["--bundle", "assets/captioner", "--image", "docs/scene.png", "--threads", "1"]
    as_on_windows("infer_onnx.py", *words, "--json", str(out))
    assert b"\r" not in out.read_bytes()
    assert json.loads(out.read_text(encoding="utf-8"))["caption"].startswith("a medium yellow")


@on_linux
def test_a_bundle_takes_the_place_of_an_older_one(tmp_path):
    """Its files are not held open, its names have slashes, and it carries its code."""
    code = (
        "import shutil; from pathlib import Path; from base import bundle; import infer_onnx\n"
        f"made, out = Path({str(tmp_path / 'made')!r}), Path({str(tmp_path / 'bundle')!r})\n"
        "shutil.copytree('assets/captioner', out); shutil.copytree(out, made)\n"
        "facts = bundle.read(made); bundle.copy_code(Path('.'), made)\n"
        "[facts.pop(name) for name in ('files', 'format')]\n"
        "bundle.seal(made, facts); infer_onnx.Runner(made); bundle.publish(made, out)\n"
        "infer_onnx.Runner(out)\n"
    )
    as_on_windows("-c", code)
    raw = (tmp_path / "bundle" / "bundle.json").read_bytes()
    assert b"\r" not in raw and "base/files.py" in json.loads(raw)["files"]
    assert not (tmp_path / "made").exists()


@on_linux
def test_text_to_tokens(tmp_path):
    (tmp_path / "x.txt").write_text(STORIES, encoding="utf-8")
    words = ["--input", str(tmp_path / "x.txt"), "--vocab_size", "280", "--val_fraction", "0.1"]
    as_on_windows("data_prep.py", *words, "--out", str(tmp_path / "windows"))
    plain = [sys.executable, "data_prep.py", *words, "--out", str(tmp_path / "linux")]
    subprocess.run(plain, cwd=ROOT, check=True, capture_output=True)
    for path in (tmp_path / "linux").glob("*.*"):
        if path.name != "meta.json":  # it holds the folder's own facts
            assert path.read_bytes() == (tmp_path / "windows" / path.name).read_bytes()
    assert b"\r" not in (tmp_path / "windows" / "meta.json").read_bytes()


@on_linux
@pytest.mark.long
def test_train_and_write(tmp_path):
    """A story model and a captioner: prepared, trained, resumed, written with, exported."""
    (tmp_path / "x.txt").write_text(STORIES, encoding="utf-8")
    data, run = str(tmp_path / "data"), str(tmp_path / "run")
    prep = ["--input", str(tmp_path / "x.txt"), "--out", data, "--val_fraction", "0.1"]
    as_on_windows("data_prep.py", *prep, "--vocab_size", "280")
    small = ["--d_model", "16", "--heads", "2", "--layers", "1", "--batch_size", "4"]
    short = ["--warmup_steps", "1", "--eval_every", "1", "--threads", "1"]
    words = ["--data_dir", data, "--out", run, *small, *short, "--max_length", "32"]
    as_on_windows("train.py", *words, "--max_steps", "2")
    as_on_windows("train.py", "--data_dir", data, "--out", run, "--max_steps", "3", "--resume")
    assert b"\r" not in (tmp_path / "run" / "log.jsonl").read_bytes()
    best = ["--checkpoint", f"{run}/best.pt"]
    as_on_windows("generate.py", *best, "--num_samples", "1", "--html", str(tmp_path / "x.html"))
    scenes, captioner = str(tmp_path / "scenes"), str(tmp_path / "captioner")
    sizes = ["--num_train", "20", "--num_val", "8", "--vocab_size", "320", "--workers", "2"]
    as_on_windows("prep_caption_synthetic.py", "--out", scenes, *sizes)
    words = ["--data_dir", scenes, "--out", captioner, *small, *short, "--eval_images", "4"]
    as_on_windows("train_captioning.py", *words, "--max_steps", "2")
    best = ["--checkpoint", f"{captioner}/best.pt"]
    as_on_windows("generate_caption.py", *best, "--image", "docs/scene.png")
