"""A bundle's environment: old or missing modules are one line, in syntax that old Pythons read."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from base import environment

ROOT = Path(__file__).parent.parent.parent
FIRST = ("infer_onnx.py", "base/__init__.py", "base/environment.py")


@pytest.mark.parametrize("name", FIRST)
def test_python_3_6_reads_what_comes_before_the_check(name):
    ast.parse((ROOT / name).read_text(encoding="utf-8"), feature_version=(3, 6))


def test_nothing_of_the_project_is_imported_before_the_check():
    text = (ROOT / "infer_onnx.py").read_text(encoding="utf-8")
    before = text[: text.index("environment.check()")]
    assert re.findall(r"^(?:from|import) .*", before, re.M) == ["from base import environment"]
    inside = (ROOT / "base" / "environment.py").read_text(encoding="utf-8")
    assert "from base" not in inside and "import base" not in inside


def test_the_bounds_are_those_of_the_requirements():
    text = (ROOT / "requirements-jetson.txt").read_text(encoding="utf-8")
    stated = set(re.findall(r"^([\w-]+)>=([\d.]+),<([\d.]+)$", text, re.M))
    assert stated == set(environment.MODULES.values())


def with_version(monkeypatch, module: str, version: str) -> None:
    monkeypatch.setitem(sys.modules, module, SimpleNamespace(__version__=version))


@pytest.mark.parametrize(
    "module, version, words",
    [
        ("PIL", "10.0.1", "found pillow 10.0.1; expected pillow 10.1 or newer; pip install"),
        ("numpy", "1.25.2", "numpy 1.26"),
        ("onnxruntime", "1.18.1", "onnxruntime 1.19"),
        ("tokenizers", "0.19.1", "tokenizers 0.20"),
    ],
)
def test_an_old_module_is_refused(monkeypatch, module, version, words):
    with_version(monkeypatch, module, version)
    with pytest.raises(environment.OldEnvironment, match=words):
        environment.problems()


def test_an_old_python_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(environment.sys, "version_info", (3, 8, 18))
    with pytest.raises(SystemExit) as stop:
        environment.check()
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: found Python 3.8; expected Python 3.10 or newer; ")
    assert said.count("\n") == 1


def test_a_newer_module_is_a_note(monkeypatch, capsys):
    with_version(monkeypatch, "PIL", "14.0.0")
    environment.check()
    assert capsys.readouterr().err.startswith("note: pillow 14.0.0 is newer than what was tried")


@pytest.mark.parametrize("version", ["1.19.0", "1.23.0+cu126", "1.32.1.post1", "1.32.0rc1"])
def test_versions_inside_the_bounds(monkeypatch, version):
    with_version(monkeypatch, "onnxruntime", version)
    assert environment.problems() == []


def stand_in(folder: Path, name: str, code: str) -> dict:
    """The environment of a process that finds this module first."""
    folder.mkdir()
    (folder / f"{name}.py").write_text(code, encoding="utf-8")
    return {"PYTHONPATH": str(folder), "PATH": ""}


@pytest.mark.parametrize(
    "name, code, words",
    [
        ("onnxruntime", "raise ModuleNotFoundError('x', name='onnxruntime')", "no module onnxrun"),
        ("onnxruntime", "raise ModuleNotFoundError('x', name='flatbuffers')", "does not start"),
        (
            "onnxruntime",
            "import sys; sys.stderr.write('compiled using NumPy 1.x\\nTraceback\\n')\n"
            "raise AttributeError('_ARRAY_API not found')",
            'pip install "numpy<2"',
        ),
        ("PIL", "__version__ = '10.0.1'", "pillow 10.1 or newer"),
        ("tokenizers", "", "does not start"),
    ],
)
def test_the_shell_sees_one_line(tmp_path, name, code, words):
    there = stand_in(tmp_path / "modules", name, code)
    command = [sys.executable, str(ROOT / "infer_onnx.py"), "--help"]
    done = subprocess.run(command, env=there, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("version", ["3.6", "3.7", "3.8", "3.9"])
def test_a_real_old_python(version):
    python = shutil.which(f"python{version}")
    asked = python and subprocess.run([python, "--version"], capture_output=True)
    if not python or asked.returncode:
        pytest.skip(f"no Python {version} here")
    command = [python, str(ROOT / "infer_onnx.py"), "--help"]
    done = subprocess.run(command, capture_output=True)
    said = done.stderr.decode()
    assert done.returncode == 2 and said.count("\n") == 1
    assert f"found Python {version}; expected Python 3.10 or newer" in said
