"""What a device could reach at best: bytes and operations, counted in the graphs themselves.

A stage takes at least bytes / bandwidth, and at least operations / rate. Bytes are the weights,
read once per call; the activations of one image are small compared with them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from net.experts import idle_parameters

PRODUCTS = ("MatMul", "Gemm", "MatMulInteger", "Conv", "ConvInteger")


@dataclass(frozen=True)
class Device:
    """bandwidth in bytes per second; operations per second in float32, float16 and INT8."""

    name: str
    bandwidth: float
    fp32: float
    fp16: float
    int8: float


# Orin Nano 8GB: NVIDIA's data sheets, dense. float16 is taken as half of INT8.
ORIN = (
    Device("Orin Nano, 15 W", 68e9, 1.3e12, 10e12, 20e12),
    Device("Orin Nano, 25 W", 102e9, 2.1e12, 17e12, 33e12),
)


def with_sizes(path, sizes: dict[str, int]) -> onnx.ModelProto:
    """A graph with its free axes set to these sizes and the shapes of all values inferred."""
    proto = onnx.load(path)
    for value in proto.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_value = sizes[dim.dim_param]
    # data_prop follows shapes that the graph itself computes.
    return onnx.shape_inference.infer_shapes(proto, data_prop=True)


def shapes_of(graph: onnx.GraphProto) -> dict[str, list[int]]:
    """The shape of each value and weight of a graph, by name."""
    shapes = {}
    for value in [*graph.value_info, *graph.input, *graph.output]:
        shapes[value.name] = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    for weight in graph.initializer:
        shapes[weight.name] = list(weight.dims)
    return shapes


def weight_bytes(weight: onnx.TensorProto) -> int:
    kind = onnx.helper.tensor_dtype_to_np_dtype(weight.data_type)
    return int(np.prod(weight.dims)) * kind.itemsize


def work(path, **sizes: int) -> tuple[int, float]:
    """Bytes of weights and of an adapter, and operations, of one call of a graph.

    sizes: of the free axes, as in work(path, batch=1, length=12). A multiplication and its addition
    are two operations. Products inside a Loop are not counted: use the step.
    """
    graph = with_sizes(path, sizes).graph
    shapes = shapes_of(graph)
    operations = 0.0
    for node in graph.node:
        if node.op_type not in PRODUCTS or node.output[0] not in shapes:
            continue
        outputs = np.prod(shapes[node.output[0]], dtype=float)
        left, right = shapes.get(node.input[0], [0]), shapes.get(node.input[1], [0])
        # Each output sums over the left's last axis, or over a convolution's whole kernel.
        summed = np.prod(right[1:], dtype=float) if "Conv" in node.op_type else left[-1]
        operations += 2 * outputs * summed
    size = sum(map(weight_bytes, graph.initializer))
    return size + adapter_bytes(path), operations


def adapter_bytes(path) -> int:
    """The bytes of a graph's inputs of fixed shapes: an adapter's numbers are weights too."""
    size = 0
    for value in onnx.load(path, load_external_data=False).graph.input:
        kind = value.type.tensor_type
        if kind.elem_type == onnx.TensorProto.FLOAT:
            # A free axis has no dim_value: 0.
            size += 4 * int(np.prod([dim.dim_value for dim in kind.shape.dim]))
    return size


def seconds(size: float, operations: float, device: Device, precision: str) -> float:
    """The least time of a call of `size` bytes on a device."""
    # A device loads and computes at the same time, so the slower of the two is the bound.
    return max(size / device.bandwidth, operations / getattr(device, precision))


def stages(folder, facts: dict, calls: int, length: int) -> dict[str, tuple[float, float]]:
    """(bytes, operations) of each stage of one text, all its calls included.

    calls: of the denoiser. length: tokens of the text.
    """
    result = {}
    for name, file in facts["graphs"]["cpu"].items():
        # The loop holds the step, and captioner.onnx all of them: they would count twice.
        if name in ("encoder", "condition", "step", "next"):
            times = calls if name in ("step", "next") else 1
            size, operations = work(Path(folder) / file, batch=1, length=length)
            result[name] = (size * times, operations * times)
    return result


def executed_flops(model, length: int) -> float:
    """Matrix-product operations per token that a training step of the denoiser really executes.

    The convention counts 6 per parameter. But embedding rows are looked up, not multiplied. And the
    output matrix meets the masked tokens alone: (L + 1) / 2L of them on average.
    """
    blocks = 0
    for name, weight in model.named_parameters():
        if weight.ndim == 2 and name.startswith("blocks."):
            blocks += weight.numel()
    blocks -= idle_parameters(model)
    config = model.config
    # k of L tokens are masked, k uniform on 1 … L: (L + 1) / 2 on average.
    head = config.output_size * config.d_model * (length + 1) / (2 * length)
    attention = 12 * config.layers * length * config.d_model
    return 6 * (blocks + head) + attention
