"""What TensorRT can read, and what float16 can hold: checks of finished graphs (floor 0; onnx is imported when it is used).

TensorRT cannot be installed where this was written, so these checks stand in for it: docs/edge.md says what they cannot see.
"""

from pathlib import Path

import numpy as np

from base.files import UserError

# Operators that the ONNX parser of TensorRT 10.3 (JetPack 6.2) reads: those of its support matrix that our graphs could hold.
# LayerNormalization is among them since 8.6; Attention (10.14), Gelu, RMSNormalization, DynamicQuantizeLinear and MatMulInteger are not.
TENSORRT_10_3 = frozenset(
    """Abs Add And ArgMax AveragePool BatchNormalization Cast Ceil Clip Concat Constant ConstantOfShape Conv Cos CumSum
    DequantizeLinear Div Equal Erf Exp Expand Flatten Floor Gather GatherElements Gemm GlobalAveragePool Greater GreaterOrEqual Identity
    LayerNormalization Less LessOrEqual Log LogSoftmax MatMul Max MaxPool Min Mul Neg Not Or Pad Pow QuantizeLinear Range Reciprocal ReduceMax
    ReduceMean ReduceMin ReduceSum Relu Reshape Shape Sigmoid Sin Slice Softmax Split Sqrt Squeeze Sub Tanh Tile Transpose Unsqueeze
    Where""".split()
)
HIGHEST_OPSET = 20
LARGEST_SQUARED = 255.0  # a larger value's square overflows float16 inside a normalisation: zeros come out, finite and wrong
LARGEST_HALF = 65504.0


def lint(path) -> list[str]:
    """What TensorRT 10.3 would not read in this graph, in words; empty if nothing."""
    import onnx

    proto, problems = onnx.load(path), []
    opset = max(one.version for one in proto.opset_import if one.domain in ("", "ai.onnx"))
    if opset > HIGHEST_OPSET:
        problems.append(f"opset {opset}, above {HIGHEST_OPSET}")
    problems += [
        f"operators of the domain {one.domain}"
        for one in proto.opset_import
        if one.domain not in ("", "ai.onnx")
    ]
    values = {one.name: one for one in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type not in TENSORRT_10_3:
            problems.append(f"the operator {node.op_type}")
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) > 2:
            zero = values.get(node.input[2])
            if zero is not None and onnx.numpy_helper.to_array(zero).any():
                problems.append(f"{node.op_type} with a zero point other than 0")
    for one in [*proto.graph.input, *proto.graph.output]:
        kind = one.type.tensor_type.elem_type
        if kind in (onnx.TensorProto.INT64, onnx.TensorProto.DOUBLE):
            problems.append(
                f"{one.name} of type {onnx.TensorProto.DataType.Name(kind)} at the boundary"
            )
    return sorted(set(problems))


def check_for_tensorrt(folder, names: dict) -> None:
    """Raises UserError if one of the graphs meant for TensorRT holds what it does not read."""
    for name in names.values():
        problems = lint(Path(folder) / name)
        if problems:
            raise UserError(
                f"{name} with {'; '.join(problems)}", "what TensorRT 10.3 reads", "try --opset 18"
            )


def ranges(path, feeds: list[dict]) -> dict[str, float]:
    """The largest magnitude of every float32 value inside a graph over these inputs: what a CPU cannot see overflow on a GPU."""
    import onnx
    import onnxruntime

    proto = onnx.shape_inference.infer_shapes(onnx.load(path))
    floats = [
        one.name
        for one in proto.graph.value_info
        if one.type.tensor_type.elem_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    ]
    there = {one.name for one in proto.graph.output}
    for name in floats:
        if name not in there:
            proto.graph.output.append(onnx.ValueInfoProto(name=name))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level, options.log_severity_level = (
        onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
        3,
    )
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    largest: dict[str, float] = {}
    for feed in feeds:
        found = session.run(floats, {one.name: feed[one.name] for one in session.get_inputs()})
        for name, value in zip(floats, found, strict=True):
            if value.size:
                largest[name] = max(
                    largest.get(name, 0.0), float(np.abs(value.astype(np.float64)).max())
                )
    return largest


def check_ranges(path, feeds: list[dict], *, half: bool) -> dict:
    """The largest values of a graph: anywhere, and squared by a normalisation. Raises UserError if float16 products cannot hold theirs.

    Normalisations stay FP32 in the fp16 variant; `squares_fit_half` says whether they had to.
    """
    import onnx

    largest = ranges(path, feeds)
    proto = onnx.load(path)
    squared = [
        node.input[0] for node in proto.graph.node if node.op_type in ("Pow", "LayerNormalization")
    ]
    top, top_squared = (
        max(largest.values(), default=0.0),
        max((largest.get(name, 0.0) for name in squared), default=0.0),
    )
    if half:
        products = [
            node.output[0]
            for node in proto.graph.node
            if node.op_type in ("MatMul", "Conv", "Gemm")
        ]
        over = max((largest.get(name, 0.0) for name in products), default=0.0)
        if over > LARGEST_HALF:
            raise UserError(
                f"{Path(path).name} with a product of {over:.3g}",
                f"at most {LARGEST_HALF:.0f}, the largest float16",
                "use --precision fp32",
            )
    return {
        "largest": top,
        "largest_squared": top_squared,
        "squares_fit_half": top_squared < LARGEST_SQUARED,
    }
