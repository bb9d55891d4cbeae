"""Every graph is exported with the inputs that its example names, and every kind of encoder is
exported."""

import numpy as np
import onnxruntime
import pytest

from base.config import ModelConfig
from base.runtime import Runner
from edge import graphs, onnx_files, parity, quantization, tensorrt
from export_onnx import Export
from net import image_encoders
from tests.making.captioned import save_encoder


def test_the_inputs_are_the_examples(bundled):
    """The names, the order and the fixed axes of the encoder's and the condition's inputs."""
    runner = Runner(bundled.bundle)
    facts = runner.facts
    model = ModelConfig(d_model=16, heads=2, layers=1, condition_width=facts["encoder"]["width"])
    sizes = graphs.Sizes(model, facts["preprocess"]["size"], facts["encoder"]["patches"])
    for kind, name in ((graphs.EncoderGraph, "encoder"), (graphs.ConditionGraph, "condition")):
        inputs = kind.example(None, sizes)
        found = runner.session(name).get_inputs()
        assert [value.name for value in found] == list(inputs)
        for value, entry in zip(found, inputs.values(), strict=True):
            assert value.shape == ["batch", *entry.example.shape[1:]]
    outputs = [value.name for value in runner.session("condition").get_outputs()]
    assert tuple(outputs) == graphs.ConditionGraph.outputs


# float16 has the operators of fp32 and casts, so the limits of fp32 are a long test.
@pytest.mark.parametrize("precision", ["fp16", pytest.param("fp32", marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "kind",
    ["clip", "vit", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("siglip", "dinov2"))],
)
def test_every_kind_of_encoder_is_exported_for_tensorrt(kind, precision, tmp_path):
    """At the default opset, at which a GELU is spelt with Erf: TensorRT 10.3 reads no Gelu."""
    folder = save_encoder(tmp_path / kind, kind, num_hidden_layers=1)
    encoder = image_encoders.load(str(folder))
    encoder.model.set_attn_implementation("eager")
    graph = graphs.EncoderGraph(encoder)
    if precision == "fp16":
        quantization.halve(graph)
    model = ModelConfig(d_model=16, heads=2, layers=1, condition_width=encoder.width)
    sizes = graphs.Sizes(model, encoder.preprocess.size, encoder.patches)
    path = tmp_path / "encoder.onnx"
    onnx_files.export(graph, "encoder", path, sizes, Export().opset, {})
    assert tensorrt.lint(path) == []
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    found = onnxruntime.InferenceSession(str(path)).run(None, {"image": images})[0]
    limit = parity.TOLERANCES[precision]["features"]
    assert parity.error(found, encoder.encode(images).float().numpy()) < limit
