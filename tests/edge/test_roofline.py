"""Bytes and operations are counted in the graphs, and bound the time from below."""

import numpy as np
import onnx
import pytest

from base.config import ModelConfig
from edge import roofline
from model import Denoiser
from net.anatomy import training_flops


def test_it_counts_what_is_multiplied(tmp_path):
    def floats(name, shape):
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    weight = onnx.numpy_helper.from_array(np.zeros((8, 4), np.float32), "w")
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    ends = [floats("x", ["batch", 3, 8])], [floats("y", None)]
    graph = onnx.helper.make_graph([node], "g", *ends, [weight])
    opsets = [onnx.helper.make_opsetid("", 20)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets), tmp_path / "g.onnx")
    assert roofline.work(tmp_path / "g.onnx", batch=2) == (8 * 4 * 4, 2 * (2 * 3) * 8 * 4)


def test_the_slower_of_the_two_bounds():
    device = roofline.Device("d", bandwidth=64.0, fp32=1e9, fp16=1e9, int8=1e9)
    assert roofline.seconds(128, 10.0, device, "fp16") == 2.0
    assert roofline.seconds(1, 5e9, device, "int8") == 5.0


def test_executed_operations_are_fewer_than_the_convention_counts():
    model = Denoiser(ModelConfig())
    executed, convention = roofline.executed_flops(model, 256), training_flops(model, 256)
    D, rows = 256, model.config.output_size
    blocks = 0
    for name, weight in model.named_parameters():
        if name.startswith("blocks.") and weight.ndim == 2:
            blocks += weight.numel()
    head = rows * D * 257 / 512
    assert convention - executed == pytest.approx(6 * (model.num_parameters() - blocks - head))
    assert 0.6 < executed / convention < 1
