"""export_onnx.py as a user runs it: text models, twins, compact bundles, and flags that are
refused."""

import pytest

import export_onnx
import infer_onnx
from base import bundle
from base.files import UserError
from tests.making.bundles import export, image_of, reuse_graphs
from tests.making.runs import as_block_model, as_soft_model


def test_text_models_and_twins(texts_bundled, capsys):
    """A text denoiser at opset 20 and its twin: each through the gate, and equal to torch in the
    shell."""
    denoiser, twin = texts_bundled
    for made in texts_bundled:
        words = ["--bundle", str(made.bundle), "--self_test", "--threads", "1"]
        assert infer_onnx.main(words) == 0
    with pytest.raises(UserError, match="words behind a blank"):
        infer_onnx.main(["--bundle", str(twin.bundle), "--text", "Ann [MASK] a hen."])
    words = ["--bundle", str(denoiser.bundle), "--text", "Ann had a [MASK*3] hen."]
    infer_onnx.main([*words, "--num_samples", "2"])
    assert capsys.readouterr().out.count("Ann had a") == 2


def test_a_compact_bundle(bundled, monkeypatch, tmp_path, capsys):
    """INT8, through the gate with all graphs; then only what a CPU needs is left."""
    reuse_graphs(monkeypatch, bundled.bundle)
    loose = {"logits": 0.5, "divergence": 1.0, "lengths": 0.0, "texts": 0.0}
    limits = export_onnx.parity.TOLERANCES["int8"] | loose  # 16 channels are too narrow for INT8
    monkeypatch.setitem(export_onnx.parity.TOLERANCES, "int8", limits)
    flags = ["--precision", "int8", "--calibration", "8", "--compact", "--no-code"]
    out = export(bundled.checkpoint, bundled.data, tmp_path / "compact", *flags)
    facts = bundle.read(out)
    assert facts["graphs"] == {
        "cpu": {name: f"{name}.onnx" for name in ("encoder", "condition", "loop")},
        "tensorrt": {},
    }
    assert {path.name for path in out.glob("*.onnx")} == set(facts["graphs"]["cpu"].values())
    assert not list(out.rglob("*.py"))
    assert "texts, single file" in {row["what"] for row in facts["parity"]}
    encoder = (out / "encoder.onnx").stat().st_size
    assert encoder < 0.3 * (bundled.bundle / "encoder.onnx").stat().st_size
    assert infer_onnx.main(["--bundle", str(out), "--self_test", "--threads", "1"]) == 0
    words = ["--bundle", str(out), "--image", str(image_of(bundled.data))]
    infer_onnx.main(words)
    with pytest.raises(UserError, match="step"):
        infer_onnx.main([*words, "--revise", "1"])


def test_refusals(bundled, tmp_path):
    for flags, message in (
        (["--opset", "17"], "--opset 17"),
        (["--inputs", "0"], "--inputs 0"),
        (["--precision", "int7"], "--precision .*int8"),
        (["--sampler", "remask"], "--sampler remask"),
        (["--compact", "--tensorrt"], "--compact with --tensorrt"),
        (["--compact", "--revise", "1"], "--compact with --revise 1"),
    ):
        with pytest.raises(UserError, match=message):
            export(bundled.checkpoint, bundled.data, tmp_path / "out", *flags)
        assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="which is no bundle"):
        export(bundled.checkpoint, bundled.data, bundled.data)


def test_adapters_that_are_refused(adapted_texts, texts_bundled, tmp_path):
    """Names that are equal, and an adapter of another network."""
    _, twin = texts_bundled
    one = adapted_texts / "one" / "adapter.safetensors"
    path, data = adapted_texts / "run" / "best.pt", adapted_texts / "data"
    for checkpoint, words, message in (
        (path, [f"a={one}", f"a={one}"], "--adapter a twice"),
        (path, [str(one), f"a={one}"], "a name for each"),
        (path, [f"a={tmp_path / 'none'}", f"b={one}"], "no .*none"),
        (twin.checkpoint, [f"a={one}", f"b={one}"], "the adapter of another network"),
    ):
        with pytest.raises(UserError, match=message):
            export(checkpoint, data, tmp_path / "out", "--adapter", *words)
        assert not list(tmp_path.iterdir())


def test_a_twin_stays_fp32(texts_bundled, tmp_path):
    _, twin = texts_bundled
    with pytest.raises(UserError, match="for a twin"):
        export(twin.checkpoint, twin.data, tmp_path / "out", "--precision", "fp16")


def test_help_is_true_for_captions_and_texts(capsys):
    with pytest.raises(SystemExit):
        export_onnx.main(["--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert "entropy_bound for captions, first_hitting for texts" in words
    assert "0.0 for captions, 1.0 for texts" in words


def test_a_block_model_needs_its_whole_length(text_runs, tmp_path):
    path = as_block_model(text_runs.denoiser, "1,8", tmp_path / "blocks.pt")
    with pytest.raises(UserError, match="sizes 1, 8; expected a text model that also .* size 48"):
        export(path, text_runs.data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_soft_masks_have_no_graphs(text_runs, tmp_path):
    path = as_soft_model(text_runs.denoiser, tmp_path / "soft.pt")
    with pytest.raises(UserError, match="with soft masks; expected a plain denoiser: the graphs"):
        export(path, text_runs.data, tmp_path / "out")
    assert not (tmp_path / "out").exists()
