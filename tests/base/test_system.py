"""The three systems: folders that cannot be opened, locks, memory."""

import builtins
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from base import files, system

CLAIM = "import sys; from base import files; files.run(lambda: files.claim(sys.argv[1]) and 0)"


def test_a_folder_that_cannot_be_opened_is_not_synced(tmp_path, monkeypatch):
    """Windows opens no folders: a file that was written must not end in an error."""

    def refuse(path, flags):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)
    files.write_text(tmp_path / "x.txt", "é\n")
    assert (tmp_path / "x.txt").read_bytes() == "é\n".encode()


def test_a_second_process_is_refused(tmp_path):
    files.claim(tmp_path)
    words = [sys.executable, "-c", CLAIM, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2 and "another process" in done.stderr


def test_windows_locks_the_first_byte(tmp_path, monkeypatch):
    asked = []

    def locking(handle, mode, count):
        asked.append((mode, count))
        if len(asked) > 1:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(LK_NBLCK=2, locking=locking))
    files.claim(tmp_path / "a")
    assert asked == [(2, 1)]
    with pytest.raises(files.UserError, match="another process"):
        files.claim(tmp_path / "b")


def test_a_system_without_locks_locks_nothing(tmp_path, monkeypatch):
    for name in ("fcntl", "msvcrt"):
        monkeypatch.setitem(sys.modules, name, None)
    assert files.claim(tmp_path) == tmp_path


def test_the_peak_of_memory(monkeypatch):
    subprocess.run([sys.executable, "-c", "x = bytearray(40 << 20)"], check=True)
    assert 10 < system.peak_mib() < 100_000 and 40 < system.peak_mib(children=True) < 100_000
    monkeypatch.setitem(sys.modules, "resource", None)
    assert system.peak_mib(children=True) is None
    assert system.memory_text(None) == "not measured on this system"
    assert system.memory_text(1234.4) == "1,234 MiB"


def test_macos_counts_bytes(monkeypatch):
    usage = SimpleNamespace(ru_maxrss=3 * 2**20)
    module = SimpleNamespace(RUSAGE_SELF=0, RUSAGE_CHILDREN=1, getrusage=lambda who: usage)
    monkeypatch.setitem(sys.modules, "resource", module)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert system.peak_mib(children=True) == 3


def test_old_windows_terminals_are_told_of_colours(monkeypatch):
    asked = []
    monkeypatch.setattr(os, "system", asked.append)
    monkeypatch.setattr(system, "os", SimpleNamespace(name="nt", system=asked.append))
    system.understand_colours()
    assert asked == [""]


def test_text_has_the_same_bytes_on_every_system(tmp_path, monkeypatch):
    """Windows would write \\r\\n where nothing is said, and no checksum would be right."""
    plain = builtins.open
    said = []

    def noted(path, mode, **named):
        said.append((mode, named))
        return plain(path, mode, **named)

    monkeypatch.setattr(builtins, "open", noted)
    files.write_sealed(tmp_path / "x.json", {"a": 1})
    written = [named for mode, named in said if mode == "w"]
    assert written == [{"encoding": "utf-8", "errors": "backslashreplace", "newline": "\n"}]
