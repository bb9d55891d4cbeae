"""One thread, so that tests are quick beside a training run and the same on every machine.

And the expensive folders that tests of several rooms share: each is made once per test run.
A test may read them, and copies what it changes.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from worlds.table_model import choose_opengl

choose_opengl()  # before a test imports MuJoCo, which reads it only then
torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    """Skip on Windows what Windows does not have."""
    if os.name != "nt":
        return
    for item in items:
        if item.get_closest_marker("posix"):
            item.add_marker(pytest.mark.skip(reason="not on Windows"))


def pytest_make_parametrize_id(val):
    """Name bytes by their number. A gzip file holds the time, and the processes must agree.

    pytest-xdist refuses a run in which two processes collected tests of different names.
    """
    return f"{len(val)} bytes" if isinstance(val, bytes) else None


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


@pytest.fixture(scope="session")
def adapted_texts(shared_folder) -> Path:
    """A text denoiser, two adapters of it, and one bundle with both, in folders of one root."""
    from tests.making import bundles

    return bundles.made_once(shared_folder, "adapted_texts", bundles.make_adapted_texts)


@pytest.fixture(scope="session")
def adapted_captions(shared_folder, bundled) -> Path:
    """Two adapters of the captioner of `bundled`, and one bundle with both, in folders of one root."""
    from tests.making import bundles

    def make(root):
        bundles.make_adapted_captions(root, bundled.checkpoint, bundled.data)

    return bundles.made_once(shared_folder, "adapted_captions", make)


@pytest.fixture(scope="session")
def scene_folder(tmp_path_factory):
    """A folder of captioned scenes with the embedded encoder's features: 40 in train, 8 per split."""
    from tests.making.captioned import make_captions

    return make_captions(tmp_path_factory.mktemp("scenes") / "data")


@pytest.fixture(scope="session")
def captioner(scene_folder):
    """best.pt of a very small captioner, four steps old."""
    from tests.making.captioned import make_captioner

    return make_captioner(scene_folder, scene_folder.parent / "captioner") / "best.pt"


@pytest.fixture(scope="session")
def captioner_twin(scene_folder):
    """best.pt of that captioner's twin."""
    from tests.making.captioned import make_captioner

    run = make_captioner(scene_folder, scene_folder.parent / "twin", "--objective", "ar")
    return run / "best.pt"


@dataclass(frozen=True)
class Painted:
    """A folder of picture tokens, a reader that learnt nothing, a painter and its twin, four steps old."""

    data: Path
    reader: Path
    painter: Path
    twin: Path


@pytest.fixture(scope="session")
def painted(tmp_path_factory) -> Painted:
    from tests.making.painted import make_pictures, make_reader, train

    root = tmp_path_factory.mktemp("painted")
    make_pictures(root / "data")
    make_reader(root / "reader.safetensors")
    painter = train(root / "data", root / "painter")
    twin = train(root / "data", root / "twin", "--objective", "ar")
    return Painted(root / "data", root / "reader.safetensors", painter, twin)


@pytest.fixture(scope="session")
def dialogue_folder(tmp_path_factory):
    """A folder of dialogues with the embedded encoder's features: 12 in train, 3 per split."""
    from tests.making.talked import make_dialogues

    return make_dialogues(tmp_path_factory.mktemp("dialogues") / "data")


@pytest.fixture(scope="session")
def answerer(dialogue_folder):
    """best.pt of a very small model of dialogues, four steps old."""
    from tests.making.talked import make_answerer

    return make_answerer(dialogue_folder, dialogue_folder.parent / "answerer") / "best.pt"


@pytest.fixture(scope="session")
def answerer_twin(dialogue_folder):
    """best.pt of that model's twin."""
    from tests.making.talked import make_answerer

    out = dialogue_folder.parent / "answerer_twin"
    return make_answerer(dialogue_folder, out, "--objective", "ar") / "best.pt"


@pytest.fixture(scope="session")
def conditional_world(tmp_path_factory) -> Path:
    """Pairs, their denoiser and its twin, and a conditional run of each form, in folders of one root."""
    from tests.making.paired import make_conditional, make_world
    from text.forms import FORMS

    root = make_world(tmp_path_factory.mktemp("conditional"))
    for form in FORMS:
        make_conditional(root, form, root / form)
    return root


@pytest.fixture(scope="session")
def free_run(conditional_world) -> Path:
    """The checkpoint of a conditional run of a few steps whose blanks can grow and shrink."""
    from tests.making.paired import make_conditional

    out = conditional_world / "free"
    return make_conditional(conditional_world, "context", out, "--free_lengths", "0.7")


@dataclass(frozen=True)
class TextRuns:
    """A data folder, and the checkpoints of a denoiser and its twin that learnt a little from it."""

    data: Path
    denoiser: Path
    twin: Path


@pytest.fixture(scope="session")
def text_runs(tmp_path_factory) -> TextRuns:
    """Both are 80 steps old: enough for some right guesses at every noise level."""
    from tests.making.corpus import make_data, make_run

    root = tmp_path_factory.mktemp("text_runs")
    data = make_data(root / "data")
    more = ["--max_steps", "80", "--learning_rate", "0.02"]
    make_run(data, root / "denoiser", *more)
    make_run(data, root / "twin", "--objective", "ar", *more)
    return TextRuns(data, root / "denoiser" / "best.pt", root / "twin" / "best.pt")


@pytest.fixture(scope="session")
def robot_world(shared_folder) -> Path:
    """Robot data without images, a grounder and a policy, in folders of one root."""
    pytest.importorskip("mujoco", reason="pip install -r requirements-robot.txt")
    from tests.making import bundles, robots

    return bundles.made_once(shared_folder, "robots", robots.make_world)


@pytest.fixture(scope="session")
def policy_bundled(robot_world, shared_folder) -> Bundled:
    """The policy of `robot_world` and its bundle, which has passed the gate on 12 frames."""
    from tests.making import bundles

    def make(root):
        checkpoint, data = robot_world / "policy" / "best.pt", robot_world / "data"
        bundles.export(checkpoint, data, root / "bundle", "--inputs", "12")

    root = bundles.made_once(shared_folder, "policy_bundle", make)
    return Bundled(robot_world / "data", robot_world / "policy" / "best.pt", root / "bundle")


@pytest.fixture(scope="session")
def metaworld_robot(shared_folder) -> Path:
    """Data of two tasks of Meta-World without images, a grounder and a policy, in one root."""
    pytest.importorskip("metaworld", reason="pip install -r requirements-robot.txt")
    from tests.making import bundles, robots

    return bundles.made_once(shared_folder, "metaworld", robots.make_metaworld)
