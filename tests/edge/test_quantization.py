"""Products in float16 and INT8: both INT8 forms, what stays in FP32, and how near the results
are."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from base import bundle
from base.config import ModelConfig
from edge import graphs, inputs, onnx_files, parity, quantization, smoothing
from edge.networks import Network
from net import image_encoders
from tests.making.bundles import export, reuse_graphs
from tests.making.captioned import save_encoder

# 16 channels are too narrow a model for INT8: its texts are not judged here.
LOOSE = parity.TOLERANCES["int8"] | {"logits": 0.5, "divergence": 1.0, "lengths": 0.0, "texts": 0.0}


def operators_of(graph: onnx.GraphProto) -> list[str]:
    return [node.op_type for node in graph.node]


@pytest.fixture(scope="module")
def int8(bundled, tmp_path_factory):
    """INT8 from the fixture's graphs, through its own gate."""
    with pytest.MonkeyPatch.context() as patch:
        reuse_graphs(patch, bundled.bundle)
        patch.setitem(parity.TOLERANCES, "int8", LOOSE)
        out = tmp_path_factory.mktemp("int8") / "bundle"
        flags = ["--precision", "int8", "--calibration", "8", "--tensorrt"]
        return export(bundled.checkpoint, bundled.data, out, *flags)


def test_int8_for_tensorrt(int8):
    """Q/DQ around each product with weights; attention's scores stay as they are."""
    left = len(bundle.read(int8)["lowered"]["left_in_fp32"])
    nodes = onnx.load(int8 / "step.tensorrt.onnx").graph.node
    rounded = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
    counts = []
    for node in nodes:
        if node.op_type == "MatMul":
            counts.append(sum(name in rounded for name in node.input))
    assert set(counts) == {0, 2} and counts.count(2) == 7 - left
    assert (int8 / "build_engines.sh").read_text().count("step.tensorrt.onnx") == 1
    small, large = (int8 / f"encoder{end}" for end in (".tensorrt.onnx", ".onnx"))
    assert small.stat().st_size < 0.4 * large.stat().st_size


def test_int8_for_cpus(int8):
    """Every product of the step, and of the body of the Loop."""
    left = len(bundle.read(int8)["lowered"]["left_in_fp32"])
    assert operators_of(onnx.load(int8 / "step.onnx").graph).count("MatMulInteger") == 7 - left
    loop = onnx.load(int8 / "loop.onnx").graph
    body = next(node for node in loop.node if node.op_type == "Loop").attribute[0].g
    assert operators_of(body).count("MatMulInteger") == 7 - left


def test_float16_products(bundled, tmp_path):
    """All products with weights are float16 in an exported step; its logits are near, not equal."""
    trained = inputs.open_trained(bundled.checkpoint)
    material = inputs.real_inputs(trained, bundled.data, "train", 8)
    state = list(inputs.states(trained, material))[3]
    network = Network(trained.model).eval()
    exact = smoothing.call(network, state).detach().numpy()
    quantization.halve(network)
    path, sizes = tmp_path / "step.onnx", graphs.Sizes(trained.model.config, 128, 64)
    onnx_files.export(graphs.StepGraph(network), "step", path, sizes, 20, {"build": "b"})
    kinds = []
    for weight in onnx.load(path).graph.initializer:
        if len(weight.dims) == 2 and min(weight.dims) >= 16:
            kinds.append(weight.data_type)
    assert kinds.count(onnx.TensorProto.FLOAT16) == 7
    session = onnxruntime.InferenceSession(str(path))
    names = [value.name for value in session.get_inputs()]
    found = session.run(["logits"], {name: state[name].numpy() for name in names})[0]
    real = np.arange(found.shape[1]) < state["lengths"].numpy()[:, None]
    assert 0 < parity.error(found[real], exact[real]) < 1e-2


def test_an_encoders_worst_product_stays_fp32(tmp_path):
    """One loud channel, as trained ViTs have, leaves the other channels of a tensor no INT8 step.

    Its product is found again in the exported graph.
    """
    encoder = image_encoders.load(str(save_encoder(tmp_path / "vit", "vit")))
    encoder.model.set_attn_implementation("eager")
    graph = graphs.EncoderGraph(encoder)
    products = smoothing.named_products(graph)
    loud = next(name for name in products if name.endswith("mlp.fc2"))
    products[loud.replace("fc2", "fc1")].bias.data[0] += 1e3
    products[loud].weight.data[:, 0] = 0
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8))
    cost = smoothing.costs(products, lambda: [graph(images)])
    assert smoothing.too_costly(cost) == [loud]
    model = ModelConfig(d_model=16, heads=2, layers=1, condition_width=encoder.width)
    path, sizes = tmp_path / "encoder.onnx", graphs.Sizes(model, 32, encoder.patches)
    onnx_files.export(graph, "encoder", path, sizes, 18, {})
    keep = quantization.holding(path, [products[loud].weight.detach()])
    assert len(keep) == 1
    exact = graph(images).detach().numpy()

    def error(kept: list[str]) -> float:
        quantization.dynamic(path, tmp_path / "int8.onnx", kept)
        session = onnxruntime.InferenceSession(str(tmp_path / "int8.onnx"))
        return parity.error(session.run(None, {"image": images.numpy()})[0], exact)

    assert error(keep) < error([]) / 4


@pytest.mark.parametrize("name, share, limit", [("encoder", 0.3, 0.05), ("step", 0.8, 0.05)])
def test_weights_are_stored_as_int8(bundled, tmp_path, name, share, limit):
    """A smaller file; rounded weights, and the arithmetic of float32."""
    whole, small = bundled.bundle / f"{name}.onnx", tmp_path / f"{name}.onnx"
    small.write_bytes(whole.read_bytes())
    quantization.store_as_int8(small)
    assert small.stat().st_size < share * whole.stat().st_size
    feed = {"image": np.load(bundled.bundle / "golden.npz")["images"]}
    if name == "step":
        trained = inputs.open_trained(bundled.checkpoint)
        material = inputs.real_inputs(trained, bundled.data, "val", 8)
        state = next(inputs.states(trained, material))
        feed = {key: value.numpy() for key, value in state.items()}
    exact, found = (
        onnxruntime.InferenceSession(str(path)).run(None, feed)[0] for path in (whole, small)
    )
    assert 0 < parity.error(found, exact) < limit
    assert "MatMulInteger" not in operators_of(onnx.load(small).graph)


def test_names_of_the_exporters_products():
    assert quantization.numbered([0, 2]) == [
        "node_linear",
        "node_linear_MatMul",
        "node_linear_2",
        "node_linear_2_MatMul",
    ]
