"""Two dozen faults of a fixed seed (the long run is in LOG.md), and those that the harness found and were mended."""

import errno
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from base import bundle, files
from base.files import UserError

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("faults", [5, pytest.param(25, marks=pytest.mark.long)])
def test_nothing_is_lost(faults):
    """A process of its own: it forks, which a process that has trained must not do.

    On a busy machine fewer faults fit into the minutes.
    """
    script = str(ROOT / "tests" / "hostile" / "faults" / "run.py")
    words = ["--faults", str(faults), "--seed", "0", "--no_export", "--minutes", "1.5"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, script, *words], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, (
        done.stdout + done.stderr
    )  # it is 1 if anything was lost, or no fault was tried


def test_a_full_disk_under_torch_is_one_line(tmp_path):
    """torch's zip writer hides what the system said behind an error of its own."""
    code = (
        f"import resource, torch; from base import files; from loop import checkpoint; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)); torch.set_num_threads(1)\n"
        f"files.run(lambda: checkpoint.save({str(tmp_path / 'x.pt')!r}, {{'kind': 'text', 'weights': {{'a': torch.zeros(50, 50)}}}}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (
        done.returncode == 2
        and done.stderr.startswith("error: found no room left to write")
        and not list(tmp_path.iterdir())
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 9000 and torch.get_num_threads() >= 1


def make_bundle(folder: Path, build: str) -> Path:
    folder.mkdir()
    (folder / "loop.onnx").write_bytes(build.encode())
    bundle.seal(
        folder,
        {
            "kind": "text",
            "objective": "diffusion",
            "build": build,
            "model": {},
            "sampling": {},
            "graphs": {"cpu": {"loop": "loop.onnx"}},
        },
    )
    return folder


@pytest.mark.parametrize("killed", [False, True])
def test_an_export_that_fails_between_its_renames_leaves_the_older_bundle(
    tmp_path, monkeypatch, killed
):
    """A failed rename is undone at once; after a kill the next reader, or the next export, puts the older bundle back."""
    out, made = (
        make_bundle(tmp_path / "bundle", "old"),
        make_bundle(tmp_path / ".bundle.1.tmp", "new"),
    )
    real, calls = os.replace, []

    def second_fails(*paths):
        calls.append(paths)
        if len(calls) == 2:
            if killed:
                raise SystemExit
            raise OSError(errno.EIO, "the disk")
        return real(*paths)

    monkeypatch.setattr(os, "replace", second_fails)
    with pytest.raises(SystemExit if killed else OSError):
        bundle.publish(made, out)
    assert out.exists() is not killed
    assert bundle.read(out)["build"] == "old" and bundle.check(out, bundle.read(out)) == 1
    bundle.publish(made, out)
    assert bundle.read(out)["build"] == "new" and sorted(
        path.name for path in tmp_path.iterdir()
    ) == ["bundle"]


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    (tmp_path / ".resume.pt.123.tmp").write_bytes(b"half")
    (tmp_path / "kept.tmp").write_bytes(b"not ours")
    files.claim(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "kept.tmp"}


def test_a_claim_is_the_processs_own(tmp_path):
    """The same process may claim again, also a folder that was removed and made anew; another one may not."""
    files.claim(tmp_path / "a")
    files.claim(tmp_path / "a")
    code = (
        f"from base import files; files.run(lambda: files.claim({str(tmp_path / 'a')!r}) and None)"
    )
    other = lambda: subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    done = other()
    assert (
        done.returncode == 2
        and "another process that writes into" in done.stderr
        and "Traceback" not in done.stderr
    )
    shutil.rmtree(tmp_path / "a")
    assert other().returncode == 0
    files.claim(tmp_path / "a")
    assert other().returncode == 2


def test_a_seal_is_about_every_byte(tmp_path):
    """Each single flipped byte of a sealed file is an error, or lies in the word `checksum` itself and changes nothing that is read."""
    value = {"name": "café \udcff", "checksum of another": "0" * 64, "n": [1, 2.5, None]}
    files.write_sealed(tmp_path / "x.json", value)
    raw = (tmp_path / "x.json").read_bytes()
    assert files.read_sealed(tmp_path / "x.json", "it", "again") == value
    harmless = 0
    for at in range(len(raw)):
        (tmp_path / "x.json").write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        try:
            found = files.read_sealed(tmp_path / "x.json", "it", "again")
        except UserError as error:
            assert "x.json" in str(error)
        else:
            assert {name: found[name] for name in value} == value
            harmless += 1
    assert harmless <= len("checksum")
