"""Smaller numbers: products in float16, or in INT8 after smoothing.

INT8 comes in two forms, because no file is good for both machines:

- `dynamic` for CPUs: 2.3 times as fast as FP32 on a Xeon with VNNI. TensorRT knows no operator of
  it.
- `static`, symmetric Q/DQ, for TensorRT. On a CPU it is slower than FP32.

Only products with weights are quantised. With everything quantised, a captioner lost three times as
many captions (docs/log/edge.md).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from torch import nn

from edge.inputs import FEED, as_arrays
from edge.onnx_files import quiet
from edge.smoothing import call, costs, named_products, smooth, smooth_encoder, too_costly

# What --precision fp16 leaves in float32, for bundle.json.
FP32_PARTS = (
    "normalisations",
    "softmax",
    "attention scores",
    "residual stream",
    "embedding",
    "rotary positions",
    "time embedding",
    "sampling",
)
PRODUCTS = ["MatMul", "Conv", "Gemm"]
FOR_TENSORRT = ("encoder", "condition", "step")  # TensorRT takes no Loop with doubles
CONDITION_LENGTH_HEAD = [2, 3, 4]  # condition.onnx's products are keys, values, and the length head
COST_FEEDS = 8  # states that the costs are measured on
COST_IMAGES = 8
WORTH_STORING = 4096  # numbers in a weight that is worth two more nodes


class Half(nn.Module):
    """A product in float16 with float32 input and output, so that no sum overflows."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner.half()

    # ViT reads a layer's type from `weight` before it calls the layer; SigLIP's pooling reads
    # `bias`.
    @property
    def weight(self) -> torch.Tensor:
        return self.inner.weight

    @property
    def bias(self) -> torch.Tensor | None:
        return self.inner.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x.half()).float()


def halve(module: nn.Module) -> None:
    """Every product with weights below `module` in float16, in place; FP32_PARTS stay."""
    for name, child in module.named_children():
        # Both are small, so FP32 costs little, and a wrong length would ruin the whole caption.
        if name in ("time", "length_head"):
            continue
        if isinstance(child, (nn.Linear, nn.Conv2d)):
            setattr(module, name, Half(child))
        else:
            halve(child)


def lower(
    network: nn.Module,
    modules: dict,
    feeds: list[dict],
    images: np.ndarray | None = None,
    adapters: Sequence[dict] = (),
) -> dict:
    """Before the export: halve the products, or smooth them and measure what INT8 would cost.

    feeds: `inputs.states` for INT8, or none for float16. images: (n, S, S, 3) of a captioner.
    adapters: the network's factors of each, which the smoothing changes in place.
    Returns what bundle.json says about it.
    """
    if not feeds:
        for module in modules.values():
            halve(module)
        return {"fp32_parts": FP32_PARTS}
    # Smoothed first: the costs are of the products that INT8 will really see.
    smooth(network, feeds, adapters)
    some = feeds[:: max(1, len(feeds) // COST_FEEDS)]
    cost = costs(named_products(network), lambda: [call(network, state) for state in some])
    notes = {
        "cost": cost,
        "left_in_fp32": too_costly(cost),
        "calibrated_on_states": sum(len(feed["tokens"]) for feed in feeds),
    }
    if images is not None:
        encoder, few = modules["encoder"], torch.from_numpy(images[:COST_IMAGES])
        smoothed = smooth_encoder(encoder, torch.from_numpy(images[:FEED]))
        cost = costs(named_products(encoder), lambda: [encoder(few)])
        notes["encoder_cost"] = cost
        notes["encoder_left_in_fp32"] = too_costly(cost)
        notes["encoder_norms_smoothed"] = smoothed
    return notes


def constants_of(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    return {entry.name: onnx.numpy_helper.to_array(entry) for entry in graph.initializer}


def holding(path: Path, weights: list[torch.Tensor]) -> list[str]:
    """The names of a graph's products with one of these weights (out, in), in its Loop too."""
    graph = onnx.load(path).graph
    constants = constants_of(graph)
    wanted = [weight.numpy() for weight in weights]
    # A product inside a Loop reads the outer graph's weights.
    nodes = list(all_nodes(graph))

    def holds(node: onnx.NodeProto) -> bool:
        if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in constants:
            return False
        matrix = constants[node.input[1]]
        # The exporter may write a weight as it is, or transposed.
        return any(
            np.array_equal(matrix, weight) or np.array_equal(matrix.T, weight) for weight in wanted
        )

    return [node.name for node in nodes if holds(node)]


def without_weights(path: Path) -> list[str]:
    """The names of a graph's products of two activations, as in attention."""
    graph = onnx.load(path).graph
    constants = {entry.name for entry in graph.initializer}
    return [
        node.name
        for node in graph.node
        if node.op_type in PRODUCTS and not constants & set(node.input)
    ]


def node_names(network: nn.Module, kept: list[str]) -> list[str]:
    """The exporter's names of the products in `kept`, and of the time embedding's.

    The exporter numbers products in the order in which they run, which is the order of their
    definition.
    """
    before = 0 if network.time is None else 2  # the time embedding's two products run first
    numbers = list(range(before))
    for number, name in enumerate(named_products(network), before):
        if name in kept:
            numbers.append(number)
    return numbered(numbers)


def numbered(numbers: list[int]) -> list[str]:
    """The exporter's names of the products with these numbers.

    A product with a bias is a Gemm. The quantiser renames it before it looks at its list of names.
    """
    names = []
    for number in numbers:
        name = f"node_linear_{number}" if number else "node_linear"
        names += [name, name + "_MatMul"]
    return names


def dynamic(path: Path, target: Path, keep: list[str] | None = None) -> None:
    """For CPUs: INT8 weights per channel, activations quantised as they come; in the Loop too.

    keep: names of the products that stay FP32.
    """
    with quiet():
        quantize_dynamic(
            path,
            target,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(keep or []),
            extra_options={"EnableSubgraph": True, "MatMulConstBOnly": True},
        )


class Feeds(CalibrationDataReader):
    """Calibration feeds in the form that ONNX Runtime's quantiser reads."""

    def __init__(self, feeds: list[dict]):
        self.rest = iter(feeds)

    def get_next(self) -> dict | None:
        return next(self.rest, None)


def static(path: Path, target: Path, feeds: list[dict], keep: list[str] | None = None) -> None:
    """Symmetric INT8 Q/DQ with weights per channel, calibrated on these feeds: for TensorRT.

    Inputs and weights of products with weights are quantised, their outputs are not: outputs go
    into sums and norms, and rounding them too made up to three times the error. MatMulConstBOnly
    would leave attention's scores in, which cost more than all the rest (docs/log/edge.md).
    """
    with quiet():
        quantize_static(
            path,
            target,
            Feeds(feeds),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=PRODUCTS,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[*(keep or []), *without_weights(path)],
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "OpTypesToExcludeOutputQuantization": PRODUCTS,  # a sum or a norm reads them
            },
        )


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph and of the graphs inside it, such as the body of a Loop."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from all_nodes(attribute.g)


def channel_axis(node: onnx.NodeProto, place: int) -> int | None:
    """The axis of a weight's output channels or rows, at input `place` of a node; or None."""
    if (node.op_type, place) in (("Conv", 1), ("Gather", 0)):
        return 0
    if (node.op_type, place) == ("MatMul", 1):
        return 1
    return None


def stored_weights(graph: onnx.GraphProto) -> dict[str, int]:
    """The large float32 weights that `store_as_int8` takes, with their channel axes."""
    large = set()
    for weight in graph.initializer:
        size = int(np.prod(weight.dims))
        if weight.data_type == onnx.TensorProto.FLOAT and size >= WORTH_STORING:
            large.add(weight.name)
    axes: dict[str, set] = {}
    for node in all_nodes(graph):
        for place, name in enumerate(node.input):
            if name in large:
                axes.setdefault(name, set()).add(channel_axis(node, place))
    # A weight with two kinds of readers, or with any other reader, stays as it is.
    single = {name: found.pop() for name, found in axes.items() if len(found) == 1}
    return {name: axis for name, axis in single.items() if axis is not None}


def store_as_int8(path: Path) -> None:
    """Store a graph's remaining FP32 weights as INT8, one scale per output channel, in place.

    ONNX Runtime's dynamic form leaves convolutions, embeddings and costly products in FP32: 7.4 MB
    of the embedded encoder, which takes 1.9 MB as INT8. Cast and Mul restore float32 weights, and
    the runtime folds both when it opens the graph. So arithmetic, speed and memory stay those of
    FP32; only the weights are rounded.
    """
    proto = onnx.load(path)
    graph = proto.graph
    axes, kept, nodes = stored_weights(graph), [], []
    for entry in graph.initializer:
        name = entry.name
        if name not in axes:
            kept.append(entry)
            continue
        weight = onnx.numpy_helper.to_array(entry)
        others = tuple(axis for axis in range(weight.ndim) if axis != axes[name])
        largest = np.abs(weight).max(others, keepdims=True)
        scale = (largest.clip(1e-12) / 127).astype(np.float32)
        stored = np.round(weight / scale).astype(np.int8)
        kept.append(onnx.numpy_helper.from_array(stored, f"{name}_int8"))
        kept.append(onnx.numpy_helper.from_array(scale, f"{name}_scale"))
        to_float = onnx.helper.make_node(
            "Cast", [f"{name}_int8"], [f"{name}_float"], to=onnx.TensorProto.FLOAT
        )
        scaled = onnx.helper.make_node("Mul", [f"{name}_float", f"{name}_scale"], [name])
        nodes += [to_float, scaled]
    nodes += graph.node
    kept, nodes = list(kept), list(nodes)
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
    onnx.checker.check_model(proto)
    onnx.save(proto, path)


def kept_products(folder: Path, network: nn.Module, modules: dict, notes: dict) -> dict:
    """The products of each graph that stay FP32, by the graph's name."""
    inside = node_names(network, notes["left_in_fp32"])
    keep = {name: inside for name in ("step", "loop", "next")}
    keep["condition"] = numbered(CONDITION_LENGTH_HEAD)
    if "encoder_left_in_fp32" in notes:
        products = named_products(modules["encoder"])
        weights = [products[name].weight.detach() for name in notes["encoder_left_in_fp32"]]
        keep["encoder"] = holding(folder / "encoder.onnx", weights)
    return keep


def run_all(path: Path, feeds: list[dict]) -> list[np.ndarray]:
    """The first output of a graph for each of these feeds."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return [session.run(None, feed)[0] for feed in feeds]


def input_names(path: Path) -> list[str]:
    return [value.name for value in onnx.load(path, load_external_data=False).graph.input]


def quantize(
    folder: Path,
    network: nn.Module,
    modules: dict,
    notes: dict,
    feeds: list[dict],
    images: np.ndarray | None,
    conditions: Sequence[dict] = ({},),
) -> None:
    """Replace every graph in `folder` by its dynamic INT8 form.

    Of the graphs that TensorRT runs, NAME.tensorrt.onnx is written too: the static form.
    notes: from `lower`. feeds, images: what `lower` had. conditions: the condition's factors of
    the base and of each adapter.
    """
    keep = kept_products(folder, network, modules, notes)
    calibration = {}
    calibration["step"] = [as_arrays(feed) for feed in feeds]
    if images is not None:
        batches = [images[first : first + FEED] for first in range(0, len(images), FEED)]
        calibration["encoder"] = [{"image": batch} for batch in batches]
        # From the FP32 encoder: its file is replaced by the INT8 form only later.
        features = run_all(folder / "encoder.onnx", calibration["encoder"])
        calibration["condition"] = [
            as_arrays({"factors": factors}) | {"features": part}
            for factors in conditions
            for part in features
        ]
    for name in ("encoder", "condition", "step", "loop", "next"):
        path = folder / f"{name}.onnx"
        if not path.exists():
            continue
        # The static form first: dynamic() overwrites the FP32 graph that both start from.
        if name in FOR_TENSORRT:
            wanted = input_names(path)
            given = [{key: feed[key] for key in wanted} for feed in calibration[name]]
            static(path, folder / f"{name}.tensorrt.onnx", given, keep.get(name))
        dynamic(path, path, keep.get(name))
