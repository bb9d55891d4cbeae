"""TensorRT's words, what it does not read, and what float16 cannot hold. No TensorRT was ever at
hand."""

import numpy as np
import onnx
import pytest

from base import bundle
from base.files import UserError
from base.runtime import Runner
from edge import tensorrt


def test_the_commands(bundled):
    facts = bundle.read(bundled.bundle)
    words = tensorrt.build_command(facts, "step")
    size = facts["model"]
    head = size["d_model"] // size["heads"]
    shape = f"1x{size['layers']}x{size['heads']}x{head}x64"
    assert words[:3] == [
        "/usr/src/tensorrt/bin/trtexec",
        "--onnx=step.onnx",
        f"--saveEngine=engines/step-{facts['build']}.plan",
    ]
    inputs = f"tokens:1x{size['max_length']},lengths:1,keys:{shape},"
    for which in ("min", "opt", "max"):
        assert any(word.startswith(f"--{which}Shapes={inputs}") for word in words)
    assert {
        "--stronglyTyped",
        "--memPoolSize=workspace:1024",
        "--timingCacheFile=engines/timing.cache",
        "--skipInference",
    } <= set(words)
    gone_in_11 = {"--fp16", "--int8", "--workspace"}
    assert not gone_in_11 & set(" ".join(words).replace("=", " ").split())
    script = tensorrt.build_script(facts)
    assert script.count("--saveEngine=") == 3 == script.count("--loadEngine=")


@pytest.mark.parametrize("name", ["encoder", "condition", "step"])
def test_the_shapes_are_the_graphs(bundled, name):
    runner = Runner(bundled.bundle)
    shapes = tensorrt.shapes(runner.facts, name)
    found = {value.name: value.shape for value in runner.session(name).get_inputs()}
    assert shapes.keys() == found.keys()
    for key, shape in shapes.items():
        for ours, theirs in zip(shape, found[key], strict=True):
            assert ours == theirs or isinstance(theirs, str)  # a word is a free axis
    assert tensorrt.lint(bundled.bundle / f"{name}.onnx") == []


def test_the_loop_is_not_for_tensorrt(bundled):
    problems = tensorrt.lint(bundled.bundle / "loop.onnx")
    assert any("operator Loop" in line or "DOUBLE" in line for line in problems)
    with pytest.raises(UserError, match="loop.onnx with .*; expected what TensorRT 10.3 reads"):
        tensorrt.check_readable(bundled.bundle, {"loop": "loop.onnx"})


def floats(name: str, shape: list[int]) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def save(path, nodes, inputs, outputs, constants=(), opset: int = 20):
    graph = onnx.helper.make_graph(nodes, "g", inputs, outputs, list(constants))
    opsets = [onnx.helper.make_opsetid("", opset)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def test_lint_knows_what_tensorrt_does_not_read(tmp_path):
    def problems(operator: str, opset: int = 20) -> list[str]:
        node = onnx.helper.make_node(operator, ["x"], ["y"])
        ends = [floats("x", [2])], [floats("y", [2])]
        return tensorrt.lint(save(tmp_path / "g.onnx", [node], *ends, opset=opset))

    assert problems("Sigmoid") == []
    assert problems("Gelu") == ["the operator Gelu"]
    assert problems("Sigmoid", 23) == ["opset 23, above 20"]


@pytest.mark.parametrize(
    "zero, problems", [(0, []), (1, ["QuantizeLinear with a zero point other than 0"])]
)
def test_lint_knows_zero_points(tmp_path, zero, problems):
    node = onnx.helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"])
    constants = [
        onnx.numpy_helper.from_array(np.array(0.5, np.float32), "scale"),
        onnx.numpy_helper.from_array(np.array(zero, np.int8), "zero"),
    ]
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT8, [2])
    path = save(tmp_path / "g.onnx", [node], [floats("x", [2])], [output], constants)
    assert tensorrt.lint(path) == problems


def test_what_float16_cannot_hold_is_found(tmp_path):
    """A product of 1e5 is refused for fp16; a norm's input of 300 is told, for its square
    overflows."""
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w"], ["y"]),
        onnx.helper.make_node("Pow", ["y", "two"], ["z"]),
    ]
    constants = [
        onnx.numpy_helper.from_array(np.full((2, 2), 150.0, np.float32), "w"),
        onnx.numpy_helper.from_array(np.array(2.0, np.float32), "two"),
    ]
    path = save(tmp_path / "g.onnx", nodes, [floats("x", [1, 2])], [floats("z", [1, 2])], constants)
    found = tensorrt.check_ranges(path, [{"x": np.ones((1, 2), np.float32)}], half=True)
    assert found["largest_squared"] == 300.0 and not found["squares_fit_half"]
    large = [{"x": np.full((1, 2), 400, np.float32)}]
    assert tensorrt.check_ranges(path, large, half=False)["largest"] > 1e5
    with pytest.raises(UserError, match=r"a product of 1.2e\+05"):
        tensorrt.check_ranges(path, large, half=True)
