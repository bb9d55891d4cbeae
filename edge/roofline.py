"""What a device could reach at best: bytes and operations counted in the graphs themselves (floor 0; onnx when it is used).

A stage takes at least bytes / bandwidth and at least operations / rate. Bytes are the weights, read once a call; activations
of one picture are small beside them. Figures of the Orin Nano 8GB: NVIDIA's data sheets, dense; float16 taken as half of INT8.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Device:
    """bandwidth in bytes a second; operations a second in float32 (None: not rated), float16 and INT8."""

    name: str
    bandwidth: float
    fp32: float
    fp16: float
    int8: float


ORIN = (
    Device("Orin Nano, 15 W", 68e9, 1.3e12, 10e12, 20e12),
    Device("Orin Nano, 25 W", 102e9, 2.1e12, 17e12, 33e12),
)


def work(path, **sizes: int) -> tuple[int, float]:
    """Bytes of weights and operations of one call at these sizes of the free axes, as in work(path, batch=1, length=12).

    Operations are those of the products (two an element); products inside a Loop are not counted: use the step.
    """
    import onnx

    proto = onnx.load(path)
    for one in proto.graph.input:
        for place in one.type.tensor_type.shape.dim:
            if place.dim_param:
                place.dim_value = sizes[place.dim_param]
    proto = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    weights = {one.name: one for one in proto.graph.initializer}
    shapes = {
        one.name: [place.dim_value for place in one.type.tensor_type.shape.dim]
        for one in [*proto.graph.value_info, *proto.graph.input, *proto.graph.output]
    }
    shapes |= {name: list(one.dims) for name, one in weights.items()}
    operations = 0.0
    for node in proto.graph.node:
        if (
            node.op_type in ("MatMul", "Gemm", "MatMulInteger", "Conv", "ConvInteger")
            and node.output[0] in shapes
        ):
            out = np.prod(shapes[node.output[0]], dtype=float)
            left, right = shapes.get(node.input[0], [0]), shapes.get(node.input[1], [0])
            operations += (
                2 * out * (np.prod(right[1:], dtype=float) if "Conv" in node.op_type else left[-1])
            )
    size = sum(
        int(np.prod(one.dims)) * onnx.helper.tensor_dtype_to_np_dtype(one.data_type).itemsize
        for one in weights.values()
    )
    return size, operations


def seconds(size: float, operations: float, device: Device, precision: str) -> float:
    """The least time of a call."""
    return max(size / device.bandwidth, operations / getattr(device, precision))


def stages(folder, facts: dict, calls: int, length: int) -> dict[str, tuple[float, float]]:
    """(bytes, operations) of each stage of one text: encoder, condition, all calls of the step; or the twin's calls of next."""
    result = {}
    for name, file in facts["graphs"]["cpu"].items():
        if name in ("encoder", "condition", "step", "next"):
            times = calls if name in ("step", "next") else 1
            size, operations = work(Path(folder) / file, batch=1, length=length)
            result[name] = (size * times, operations * times)
    return result


def executed_flops(model, length: int) -> float:
    """Matrix-product operations a token really costs the denoiser: embedding rows are looked up, not multiplied, and
    the output matrix meets only the masked tokens, (L+1)/2L of them on average."""
    blocks = sum(
        weight.numel()
        for name, weight in model.named_parameters()
        if weight.ndim == 2 and name.startswith("blocks.")
    )
    head = model.config.output_size * model.config.d_model * (length + 1) / (2 * length)
    return 6 * (blocks + head) + 12 * model.config.layers * length * model.config.d_model
