"""The gate compares everything, measures what it says, and lets no wrong bundle through."""

import math
import shutil

import numpy as np
import pytest

import export_onnx
from base import bundle
from base.files import UserError
from base.runtime import Runner
from edge import inputs, onnx_files, parity
from tests.making.bundles import export


def test_report_says_every_graph_was_compared(bundled):
    facts = bundle.read(bundled.bundle)
    names = {row["what"] for row in facts["parity"]}
    assert {
        "features",
        "keys",
        "values",
        "lengths",
        "logits, 55% masked",
        "texts, as shipped",
        "texts, until all are sure",
        "texts, with noise",
        "texts, random order, noise",
        "texts, looking back",
        "divergence, 100% masked",
        "texts, single file",
        "texts, as shipped (step by step)",
    } <= names
    for row in facts["parity"]:
        assert row.get("identical", 1.0) == 1.0 and row["inputs"] >= 8
    contents = {str(path.relative_to(bundled.bundle)) for path in bundle.contents(bundled.bundle)}
    assert set(facts["files"]) == contents
    assert contents > {"infer_onnx.py", "requirements-jetson.txt", "base/runtime.py"}


def test_captions_are_scored_by_truth_or_by_references(bundled):
    """The bundle's and torch's: of scenes, and of the same images with nothing but their
    captions."""
    trained = inputs.open_trained(bundled.checkpoint)
    material = inputs.real_inputs(trained, bundled.data, "val", 8)
    for keys in ({"images", "truthful", "set_exact"}, {"images", "bleu_4", "cider"}):
        found = parity.scores(trained, Runner(bundled.bundle), material)
        assert found["bundle"] == found["torch"]
        assert set(found["torch"]) == keys
        assert found["torch"]["images"] == 8
        for record in material.records:
            record["scene"] = None


def test_an_export_that_fails_the_gate_leaves_nothing(bundled, monkeypatch, tmp_path):
    """The graphs are the fixture's; the trained model differs by one weight matrix."""
    made = shutil.copytree(bundled.bundle, tmp_path / "bundle")
    before = (made / "bundle.json").read_bytes()
    opened = inputs.open_trained(bundled.checkpoint)
    opened.model.blocks[0].attention.value.weight.data *= 1.01
    monkeypatch.setattr(export_onnx, "open_trained", lambda path, adapter: opened)
    monkeypatch.setattr(
        onnx_files,
        "export",
        lambda module, name, path, *rest: shutil.copy(bundled.bundle / path.name, path),
    )
    with pytest.raises(UserError, match="logits, 15% masked with an error"):
        export(bundled.checkpoint, bundled.data, made)
    assert (made / "bundle.json").read_bytes() == before
    assert not list(tmp_path.glob(".*tmp*"))


def test_a_result_that_is_no_number_passes_no_gate():
    rows = [
        ({"error": 1.0, "limit": 2.0}, True),
        ({"identical": 1.0, "limit": 1.0}, True),
        ({"error": float("nan"), "limit": 2.0}, False),
        ({"error": 3.0, "limit": 2.0}, False),
        ({"identical": 0.9, "limit": 1.0}, False),
        ({"identical": 0.1, "limit": None}, True),
    ]
    for row, expected in rows:
        assert parity.passes(row) is expected


def test_divergence_is_the_mean_of_each_words():
    """By hand: KL of (1/2, 1/2) from (1/4, 3/4) is log(2)/2 + log(2/3)/2; of equal rows it is 0."""
    expected = np.log(np.array([[0.5, 0.5], [0.5, 0.5]], np.float32))
    found = np.log(np.array([[0.25, 0.75], [0.5, 0.5]], np.float32))
    by_hand = (math.log(2) + math.log(2 / 3)) / 4
    # A shift of the logits changes no distribution.
    assert parity.divergence(found + 7, expected) == pytest.approx(by_hand, abs=1e-6)
    assert parity.divergence(expected, expected) == 0


@pytest.mark.parametrize("texts, differing", [(3, 0), (4, 1), (8, 2), (16, 2), (64, 6), (200, 20)])
def test_a_few_drawn_texts_may_differ(texts, differing):
    """A draw falls on a boundary in about 1% of the texts."""
    limit = parity.drawn_limit(0.9, texts)
    assert (texts - differing) / texts >= limit > (texts - differing - 1) / texts
    assert parity.drawn_limit(None, texts) is None
