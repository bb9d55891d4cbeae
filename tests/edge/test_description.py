"""bundle.json and golden.npz say what was exported, and torch writes the golden outputs again."""

import numpy as np

from base import bundle, files
from edge import adapter_inputs, description, inputs
from edge.parity import SampleConfig


def test_facts(bundled):
    facts = bundle.read(bundled.bundle)
    trained = inputs.open_trained(bundled.checkpoint)
    settings = SampleConfig(**facts["sampling"])
    again = description.describe(trained, bundled.checkpoint, settings, precision="fp32", opset=18)
    for name, value in again.items():
        assert facts[name] == value, name
    assert facts["checkpoint"]["sha256"] == files.file_digest(bundled.checkpoint).hex()


def test_golden_outputs_are_torchs(bundled):
    trained = inputs.open_trained(bundled.checkpoint)
    material = inputs.real_inputs(trained, bundled.data, "val", 64)
    settings = SampleConfig(**bundle.read(bundled.bundle)["sampling"])
    golden = bundle.golden(bundled.bundle)
    variants = adapter_inputs.open_variants(trained, {})
    again = description.golden_arrays(variants, material, settings)
    assert set(golden) == {"images", "picture", "as_shipped", "with_noise"} == set(again)
    for name, array in again.items():
        assert np.array_equal(golden[name], array), name


def test_padding():
    ids = description.padded([([1, 5, 2], []), ([1, 2], [])], 4, 9)
    assert ids.tolist() == [[1, 5, 2, 9], [1, 2, 9, 9]]
