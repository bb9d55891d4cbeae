"""Which graphs a bundle has, and what a compact bundle leaves out."""

import shutil

import pytest

from base import bundle
from base.files import UserError
from base.runtime import Runner
from edge import building, inputs
from edge.networks import Network


def test_graphs_of_each_kind(bundled, texts_bundled):
    denoiser, twin = texts_bundled
    expected = {
        bundled: (["encoder", "condition", "step", "loop"], ["captioner"]),
        denoiser: (["step", "loop"], []),
        twin: (["next"], []),
    }
    for made, (names, joined) in expected.items():
        trained = inputs.open_trained(made.checkpoint)
        assert list(building.modules_of(trained, Network(trained.model))) == names
        assert list(bundle.read(made.bundle)["graphs"]["cpu"]) == [*names, *joined]


def test_a_compact_bundle_writes_the_same(bundled, tmp_path):
    """It keeps three graphs, and names the flags that need the others."""
    folder = shutil.copytree(bundled.bundle, tmp_path / "compact")
    facts = bundle.read(folder)
    building.make_compact(folder, facts)
    bundle.seal(folder, {name: value for name, value in facts.items() if name != "files"})
    assert {path.stem for path in folder.glob("*.onnx")} == {"encoder", "condition", "loop"}
    whole, compact = Runner(bundled.bundle), Runner(folder)
    images = bundle.golden(folder)["images"][:2]
    expected = whole.write(images, whole.settings)
    assert compact.write(images, compact.settings) == expected
    settings = type(whole.settings)(**{**whole.facts["sampling"], "revise": 1})
    with pytest.raises(UserError, match="step"):
        compact.write(images, settings)
    with pytest.raises(UserError, match="tensorrt"):
        Runner(folder, for_tensorrt=True).write(images, compact.settings)
