"""For TensorRT: what it can read, what float16 can hold, and the commands that build its engines.

TensorRT cannot be installed on the machines where this was written. The checks here stand in for
it; docs/edge.md says what they cannot see.

Precision is in the graphs (float16 products, or Q/DQ), so the engines are strongly typed. The same
command line serves TensorRT 10.3 (JetPack 6.2) to 11, whose trtexec has lost --fp16 and --int8.
An engine has batch 1 and fixed shapes, and is good for one graph on one device. So its file name
holds the build. The timing cache makes the second build quick.
"""

import shlex
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from base.files import UserError

# Operators that the ONNX parser of TensorRT 10.3 (JetPack 6.2) reads: those of its support matrix
# that our graphs could hold. It has LayerNormalization since 8.6. It lacks Attention (until 10.14),
# Gelu, RMSNormalization, DynamicQuantizeLinear and MatMulInteger.
READ_BY_10_3 = """
    Abs Add And ArgMax AveragePool BatchNormalization Cast Ceil Clip Concat Constant ConstantOfShape
    Conv Cos CumSum DequantizeLinear Div Equal Erf Exp Expand Flatten Floor Gather GatherElements
    Gemm GlobalAveragePool Greater GreaterOrEqual Identity LayerNormalization Less LessOrEqual Log
    LogSoftmax MatMul Max MaxPool Min Mul Neg Not Or Pad Pow QuantizeLinear Range Reciprocal
    ReduceMax ReduceMean ReduceMin ReduceSum Relu Reshape Shape Sigmoid Sin Slice Softmax Split Sqrt
    Squeeze Sub Tanh Tile Transpose Unsqueeze Where
"""
HIGHEST_OPSET = 20
# The square of a larger value overflows float16 inside a normalisation. The result is a finite,
# wrong 0.
LARGEST_SQUARED = 255.0
LARGEST_HALF = 65504.0
OWN_DOMAINS = ("", "ai.onnx")  # of ONNX's own operators
TRTEXEC = "/usr/src/tensorrt/bin/trtexec"  # where JetPack installs it
WORKSPACE_MIB = 1024  # the builder shares 8 GB with everything else


def lint(path) -> list[str]:
    """What TensorRT 10.3 would not read in this graph, in words; empty if it reads everything."""
    proto = onnx.load(path)
    problems = set()
    opset = max(entry.version for entry in proto.opset_import if entry.domain in OWN_DOMAINS)
    if opset > HIGHEST_OPSET:
        problems.add(f"opset {opset}, above {HIGHEST_OPSET}")
    for entry in proto.opset_import:
        if entry.domain not in OWN_DOMAINS:
            problems.add(f"operators of the domain {entry.domain}")
    constants = {entry.name: entry for entry in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type not in READ_BY_10_3.split():
            problems.add(f"the operator {node.op_type}")
        if has_zero_point(node, constants):
            problems.add(f"{node.op_type} with a zero point other than 0")
    for value in [*proto.graph.input, *proto.graph.output]:
        kind = value.type.tensor_type.elem_type
        if kind in (onnx.TensorProto.INT64, onnx.TensorProto.DOUBLE):
            word = onnx.TensorProto.DataType.Name(kind)
            problems.add(f"{value.name} of type {word} at the boundary")
    return sorted(problems)


def has_zero_point(node: onnx.NodeProto, constants: dict) -> bool:
    """Whether a quantising node has a zero point other than 0, which TensorRT lacks."""
    if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or len(node.input) < 3:
        return False
    zero = constants.get(node.input[2])
    return zero is not None and bool(onnx.numpy_helper.to_array(zero).any())


def check_readable(folder, names: dict) -> None:
    """Raises UserError if TensorRT does not read one of its graphs."""
    for name in names.values():
        problems = lint(Path(folder) / name)
        if problems:
            raise UserError(
                f"{name} with {'; '.join(problems)}", "what TensorRT 10.3 reads", "try --opset 18"
            )


def ranges(path, feeds: list[dict]) -> dict[str, float]:
    """The largest magnitude of every float value inside a graph over these inputs.

    A GPU's float16 may overflow where a CPU's float32 shows nothing.
    """
    proto = onnx.shape_inference.infer_shapes(onnx.load(path))
    floating = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    floats = [
        value.name
        for value in proto.graph.value_info
        if value.type.tensor_type.elem_type in floating
    ]
    outputs = {value.name for value in proto.graph.output}
    for name in floats:
        if name not in outputs:
            proto.graph.output.append(onnx.ValueInfoProto(name=name))
    options = onnxruntime.SessionOptions()
    # Optimised, the runtime would fuse the values away that are asked for.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    wanted = [value.name for value in session.get_inputs()]
    largest: dict[str, float] = {}
    for feed in feeds:
        found = session.run(floats, {name: feed[name] for name in wanted})
        for name, value in zip(floats, found, strict=True):
            if value.size:
                size = float(np.abs(value.astype(np.float64)).max())
                largest[name] = max(largest.get(name, 0.0), size)
    return largest


def check_ranges(path, feeds: list[dict], *, half: bool) -> dict:
    """The largest values of a graph: anywhere, and squared by a normalisation.

    half: the products are float16. Raises UserError if they cannot hold their values then.
    Normalisations stay FP32 in the fp16 bundle; `squares_fit_half` says whether they had to.
    """
    largest = ranges(path, feeds)
    squared, products = 0.0, 0.0
    for node in onnx.load(path).graph.node:
        if node.op_type in ("Pow", "LayerNormalization"):
            squared = max(squared, largest.get(node.input[0], 0.0))
        if node.op_type in ("MatMul", "Conv", "Gemm"):
            products = max(products, largest.get(node.output[0], 0.0))
    if half and products > LARGEST_HALF:
        raise UserError(
            f"{Path(path).name} with a product of {products:.3g}",
            f"at most {LARGEST_HALF:.0f}, the largest float16",
            "use --precision fp32",
        )
    return {
        "largest": max(largest.values(), default=0.0),
        "largest_squared": squared,
        "squares_fit_half": squared < LARGEST_SQUARED,
    }


def shapes(facts: dict, name: str) -> dict[str, tuple[int, ...]]:
    """The shape of each input with a free axis at batch 1, from the facts of bundle.json.

    An adapter's inputs have fixed shapes, which trtexec reads in the graph.
    """
    model, encoder = facts["model"], facts.get("encoder", {})
    if name == "encoder":
        side = facts["preprocess"]["size"]
        return {"image": (1, side, side, 3)}
    if name == "condition":
        return {"features": (1, encoder["patches"], encoder["width"])}
    inputs: dict[str, tuple[int, ...]] = {"tokens": (1, model["max_length"]), "lengths": (1,)}
    if encoder:
        before = (1, model["layers"], model["heads"])
        head = model["d_model"] // model["heads"]
        inputs["keys"] = (*before, head, encoder["patches"])
        inputs["values"] = (*before, encoder["patches"], head)
    if model["time_conditioning"] != "none":
        inputs["share"] = (1,)
    return inputs


def engine_file(facts: dict, name: str) -> str:
    return f"engines/{name}-{facts['build']}.plan"


def build_command(facts: dict, name: str) -> list[str]:
    """The words of trtexec that build the engine of one graph."""
    inputs = []
    for key, shape in shapes(facts, name).items():
        inputs.append(f"{key}:{'x'.join(map(str, shape))}")
    # Equal smallest and largest shapes: the engine is tuned for one image and the full length.
    fixed = ",".join(inputs)
    return [
        TRTEXEC,
        f"--onnx={facts['graphs']['tensorrt'][name]}",
        f"--saveEngine={engine_file(facts, name)}",
        "--stronglyTyped",
        *(f"--{which}Shapes={fixed}" for which in ("min", "opt", "max")),
        f"--memPoolSize=workspace:{WORKSPACE_MIB}",
        "--timingCacheFile=engines/timing.cache",
        "--builderOptimizationLevel=5",
        "--skipInference",
    ]


def time_command(facts: dict, name: str) -> list[str]:
    """The words of trtexec that time this engine without Python around it."""
    return [
        TRTEXEC,
        f"--loadEngine={engine_file(facts, name)}",
        "--useCudaGraph",
        "--useSpinWait",
        "--noDataTransfers",
        "--warmUp=1000",
        "--duration=15",
        "--percentile=50,90,99",
    ]


def build_script(facts: dict) -> str:
    """build_engines.sh, which builds and then times each engine on the device."""
    lines = [
        "#!/bin/sh",
        "# On the Jetson, in this folder: sh build_engines.sh",
        "# Its authors never ran it on a device: see docs/edge.md.",
        "set -e",
        "mkdir -p engines",
    ]
    for command in (build_command, time_command):
        for name in facts["graphs"]["tensorrt"]:
            lines.append(shlex.join(command(facts, name)))
    return "\n".join(lines) + "\n"
