"""A bundle stands alone, refuses what was changed, and runs with the code of later versions."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import infer_onnx
from base import bundle
from base.files import UserError
from tests.making.bundles import image_of

# As on a device: none of the project's training libraries can be imported.
ALONE = """
import sys
sys.modules.update(torch=None, transformers=None, onnx=None)
sys.path[:0] = ['.']
import infer_onnx
sys.exit(infer_onnx.main(sys.argv[1:]))
"""


def run(words, folder):
    return subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True)


def test_a_bundle_needs_nothing_of_the_project(bundled, tmp_path):
    """Copied away, torch and transformers not importable, other working folder: self-test and a
    caption."""
    away = shutil.copytree(bundled.bundle, tmp_path / "away")
    for flags in (
        ["--self_test", "--threads", "1"],
        ["--self_test", "--threads", "1", "--low_memory"],
        ["--image", str(image_of(bundled.data)), "--json", "out.jsonl"],
    ):
        done = run(["-I", "-c", ALONE, *flags], away)
        assert done.returncode == 0, done.stderr
    assert json.loads((away / "out.jsonl").read_text())["caption"]
    done = run(["infer_onnx.py", "--self_test", "--threads", "1"], away)
    assert "self-test passed" in done.stdout


def test_a_changed_byte_anywhere_is_an_error(bundled, tmp_path):
    made = bundled.bundle
    copy = shutil.copytree(made, tmp_path / "copy")
    flags = ["--bundle", str(copy), "--image", str(image_of(bundled.data)), "--threads", "1"]
    for path in [*bundle.contents(made), made / "bundle.json"]:
        name = path.relative_to(made)
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        (copy / name).write_bytes(raw)
        with pytest.raises(UserError, match="changed|JSON|format"):
            infer_onnx.main(flags)
        (copy / name).unlink()
        with pytest.raises(UserError, match="found no .*" + re.escape(path.name)):
            infer_onnx.main(flags)
        shutil.copy(path, copy / name)


def test_a_bundle_of_an_older_commit_still_runs(tmp_path, capsys):
    """old_bundle.zip: a text denoiser of one layer, exported by the first commit that could.

    Never make it again: its age is its use.
    """
    shutil.unpack_archive(Path(__file__).parent / "old_bundle.zip", tmp_path)
    folder = ["--bundle", str(tmp_path)]
    assert infer_onnx.main([*folder, "--self_test", "--threads", "1"]) == 0
    capsys.readouterr()
    words = ["--text", "Ann had a [MASK*3] hen.", "--seed", "1", "--steps", "3"]
    infer_onnx.main([*folder, *words])
    ours = capsys.readouterr().out
    assert ours.startswith("Ann had a")
    assert run(["infer_onnx.py", *words], tmp_path).stdout == ours  # its own code
