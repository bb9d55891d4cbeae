"""One thread, so that tests are quick beside a training run and the same on every machine.

And the expensive folders that tests of several rooms share: each is made once per test run.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@dataclass(frozen=True)
class Bundled:
    """A data folder, a checkpoint trained on it, and the checkpoint's bundle."""

    data: Path
    checkpoint: Path
    bundle: Path


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """A folder that all processes of pytest-xdist share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def bundled(shared_folder) -> Bundled:
    """A captioner and its bundle. Its export has passed the gate, on the split's 8 images."""
    from tests.making import bundles

    root = bundles.made_once(shared_folder, "captioning", bundles.make_captioning_world)
    return Bundled(root / "data", root / "run" / "best.pt", root / "bundle")


@pytest.fixture(scope="session")
def texts_bundled(shared_folder) -> tuple[Bundled, Bundled]:
    """A text denoiser and its twin, with their bundles."""
    from tests.making import bundles

    root = bundles.made_once(shared_folder, "texts", bundles.make_text_world)
    denoiser = Bundled(root / "data", root / "run" / "best.pt", root / "bundle")
    return denoiser, Bundled(root / "data", root / "twin" / "best.pt", root / "twin_bundle")
