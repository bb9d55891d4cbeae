"""Whether this Python and its modules can run a bundle, before anything else is imported.

This file must be read by Python 3.6: no newer syntax, and nothing imported from the project. Old
Pythons would stop at other files with a SyntaxError, and an old Pillow would call every image
damaged.
"""

import contextlib
import importlib
import io
import re
import sys

PYTHON = (3, 10)
INSTALL = "pip install -r requirements-jetson.txt"
# module: (name to install, lowest version, first version that was not tried). The bounds of
# requirements-jetson.txt; a test compares them.
MODULES = {
    "numpy": ("numpy", "1.26", "3"),
    "onnxruntime": ("onnxruntime", "1.19", "1.33"),
    "tokenizers": ("tokenizers", "0.20", "0.24"),
    "PIL": ("pillow", "10.1", "14"),
}


def check():
    """Say in one line what is missing or too old, and end with status 2.

    A version that is newer than the tried ones is named on stderr, and the run goes on.
    """
    try:
        for note in problems():
            print("note: " + note, file=sys.stderr)
    except OldEnvironment as error:
        print("error: " + str(error), file=sys.stderr)
        sys.exit(2)


class OldEnvironment(Exception):
    """What was found, what was expected, what to do: base.errors would need a newer Python."""

    def __init__(self, found, expected, do):
        text = f"found {found}; expected {expected}; {do}"
        super().__init__(" ".join(text.split()))


def problems():
    """Notes on versions that were never tried. Raises OldEnvironment at the first fault."""
    found = tuple(sys.version_info[:2])
    if found < PYTHON:
        raise OldEnvironment(
            "Python {}.{}".format(*found),
            "Python {}.{} or newer".format(*PYTHON),
            "run python3.10 infer_onnx.py, or make an environment with a newer Python",
        )
    notes = []
    for module, (name, lowest, beyond) in MODULES.items():
        version = version_of(module, name)
        if numbers(version) < numbers(lowest):
            raise OldEnvironment(f"{name} {version}", f"{name} {lowest} or newer", INSTALL)
        if numbers(version) >= numbers(beyond):
            notes.append(
                f"{name} {version} is newer than what was tried (below {beyond}): run --self_test"
            )
    return notes


def version_of(module, name):
    """The version of a module, imported. Raises OldEnvironment if it is missing or damaged."""
    said = io.StringIO()
    try:
        # numpy explains at length why a module does not start. A single line must be enough.
        with contextlib.redirect_stderr(said):
            return str(importlib.import_module(module).__version__)
    except Exception as error:  # a compiled module may raise anything
        missing = isinstance(error, ImportError) and getattr(error, "name", None) == module
        if missing:
            lowest = MODULES[module][1]
            raise OldEnvironment(
                f"no module {module} for {sys.executable}", f"{name} {lowest} or newer", INSTALL
            ) from None
        told = said.getvalue() + str(error)
        # NVIDIA's wheels for JetPack 6 were built for numpy 1.
        old = re.search(r"NumPy 1|_ARRAY_API|numpy\.core\.multiarray", told)
        lines = (str(error) or type(error).__name__).strip().splitlines()
        raise OldEnvironment(
            f"{name}, which does not start ({lines[0][:200]})",
            f"{name} that this Python and its modules can load",
            'pip install "numpy<2"' if old else INSTALL + ", or see docs/edge.md",
        ) from None


def numbers(version):
    """The leading numbers of a version: "1.23.0+cu126" is (1, 23, 0)."""
    leading = re.sub(r"[^\d.].*", "", version)
    return tuple(int(part) for part in leading.split(".") if part)
