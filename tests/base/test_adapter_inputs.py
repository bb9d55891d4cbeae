"""The adapters of a bundle, by hand: names, files, and files that do not fit the graphs."""

from types import SimpleNamespace

import numpy as np
import pytest

from base import adapter_inputs, bundle
from base.files import UserError

PLAIN = {
    **{"kind": "text", "objective": "absorbing", "build": "b", "model": {}},
    **{"sampling": {}, "graphs": {}},
}
NODES = [
    SimpleNamespace(name="tokens", shape=["batch", "length"]),
    SimpleNamespace(name="blocks.0.out.down", shape=[4, 2]),
]


def make(folder, **facts) -> dict:
    """A bundle without graphs whose adapters are `base` and `one`."""
    (folder / "adapters").mkdir(parents=True)
    for number, name in enumerate(("base", "one")):
        down = np.full((4, 2), number, np.float32)
        np.savez(folder / "adapters" / f"{name}.npz", **{"blocks.0.out.down": down})
    about = {name: {"file": f"adapters/{name}.npz"} for name in ("base", "one")}
    bundle.seal(folder, {**PLAIN, "format": bundle.ADAPTED, "adapters": about, **facts})
    return bundle.read(folder)


def test_each_name_has_its_numbers(tmp_path):
    facts = make(tmp_path / "bundle")
    assert adapter_inputs.names(facts) == ["base", "one"]
    for name, number in ((None, 0), ("base", 0), ("one", 1)):
        found = adapter_inputs.load(tmp_path / "bundle", facts, name)
        assert (found["blocks.0.out.down"] == number).all()
        adapter_inputs.check_fits(NODES, found, "step.onnx")
    with pytest.raises(UserError, match="--adapter two; expected one of base, one; choose"):
        adapter_inputs.load(tmp_path / "bundle", facts, "two")
    assert adapter_inputs.load(tmp_path, PLAIN, None) == {}
    with pytest.raises(UserError, match="a bundle without adapters"):
        adapter_inputs.load(tmp_path, PLAIN, "one")


@pytest.mark.parametrize(
    "down, message",
    [
        (np.zeros((4, 3), np.float32), r"float32 of shape \[4, 3\]; expected float32 of shape"),
        (np.zeros((4, 2)), "is float64"),
        (None, "an adapter without blocks.0.out.down"),
    ],
    ids=["another rank", "another type", "none"],
)
def test_numbers_that_do_not_fit_the_graph(down, message):
    factors = {"other": np.zeros(1, np.float32)}
    if down is not None:
        factors["blocks.0.out.down"] = down
    with pytest.raises(UserError, match=message):
        adapter_inputs.check_fits(NODES, factors, "step.onnx")


@pytest.mark.parametrize(
    "adapters",
    [[], {}, {"one": "adapters/one.npz"}, {"one": {"file": "../one.npz"}}, {"one": {"file": 3}}],
    ids=["a list", "none", "a word", "another file", "a number"],
)
def test_a_description_of_another_shape(tmp_path, adapters):
    with pytest.raises(UserError, match=r"of another shape \(adapters"):
        make(tmp_path / "bundle", adapters=adapters)


def test_older_readers_refuse_it(tmp_path):
    """They know format 1 alone, and name the format; nothing else of the bundle is read."""
    assert make(tmp_path / "bundle")["format"] == 2 != bundle.FORMAT


def test_what_golden_outputs_are_called():
    assert adapter_inputs.golden_name("as_shipped", None) == "as_shipped"
    assert adapter_inputs.golden_name("as_shipped", "base") == "as_shipped"
    assert adapter_inputs.golden_name("as_shipped", "one") == "as_shipped.one"
