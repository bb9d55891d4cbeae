"""From a torch module to an ONNX file, and three files joined into one.

`export` writes a graph of edge/graphs.py; `join` puts encoder, condition and loop into
captioner.onnx, image in and caption out. Each file carries the facts of its bundle in its metadata.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, compose, helper, numpy_helper
from torch import nn

from base.files import UserError
from edge.graphs import Inputs, Sizes

OPSETS = (18, 20)  # LayerNormalization needs 17; TensorRT 10.3 reads up to 20
IR_VERSION = 10  # the oldest onnxruntime in requirements-jetson.txt reads up to 10
JOINED = ("encoder", "condition", "loop")  # the graphs that captioner.onnx is made of
# The smallest and the largest size of each free axis. Lengths end at the model's own.
LIMITS = {"batch": (1, 1024), "steps": (1, 4096), "numbers": (1, 1 << 20)}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the log lines and the warnings of torch's tracing and of ONNX Runtime's quantiser.

    The tracer writes thousands of lines. The quantiser advises a pre-processing that finds nothing
    to do in these graphs.
    """
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def free_axes(inputs: Inputs, max_length: int) -> dict[str, dict]:
    """The free axes of each input as torch.export wants them: {input: {axis: Dim}}."""
    limits = {**LIMITS, "length": (2, max_length)}
    dims = {name: torch.export.Dim(name, min=low, max=high) for name, (low, high) in limits.items()}
    return {
        name: {axis: dims[label] for axis, label in entry.free.items()}
        for name, entry in inputs.items()
    }


def export(graph: nn.Module, name: str, path, sizes: Sizes, opset: int, facts: dict) -> None:
    """Write one graph as one ONNX file with `facts` in its metadata.

    Raises UserError if the exporter fixed an axis that must be free.
    """
    inputs = graph.example(sizes)
    examples = as_arguments(inputs, {key: entry.example for key, entry in inputs.items()})
    free = as_arguments(inputs, free_axes(inputs, sizes.model.max_length))
    with quiet(), torch.no_grad():
        program = torch.export.export(graph.eval(), (), examples, dynamic_shapes=free)
        exported = torch.onnx.export(
            program,
            kwargs=examples,
            dynamo=True,
            opset_version=opset,
            input_names=list(inputs),
            output_names=list(graph.outputs),
            verbose=False,
        )
    proto = exported.model_proto  # the property builds the proto at each access: take it once
    name_axes(proto, inputs)
    write(proto, name, path, facts)


def as_arguments(inputs: Inputs, values: dict) -> dict:
    """Values of a graph's inputs as the arguments of its module: factors share a dict."""
    own = {name: value for name, value in values.items() if not inputs[name].factor}
    factors = {name: value for name, value in values.items() if inputs[name].factor}
    return own | ({"factors": factors} if factors else {})


def write(proto: onnx.ModelProto, name: str, path, facts: dict) -> None:
    """Check a graph and write it with `facts` in its metadata."""
    # A newer version would be refused by the onnxruntime of the device.
    proto.ir_version = min(proto.ir_version, IR_VERSION)
    strip(proto)
    for key, value in {**facts, "graph": name}.items():
        proto.metadata_props.add(key=key, value=str(value))
    onnx.checker.check_model(proto)
    onnx.save(proto, path)


def axes_of(value: onnx.ValueInfoProto):
    """The axes of an input or output of a graph."""
    return value.type.tensor_type.shape.dim


def name_axes(proto: onnx.ModelProto, inputs: Inputs) -> None:
    """Give the free axes their names in place of torch's symbols.

    Raises UserError if one is fixed: torch fixes an axis without a word if the module depends on
    it.
    """
    names = {}
    for value in proto.graph.input:
        for axis, label in inputs[value.name].free.items():
            dim = axes_of(value)[axis]
            if not dim.dim_param:
                raise UserError(
                    f"{value.name} with {dim.dim_value} fixed at axis {axis}",
                    "a free axis",
                    "export with the torch of requirements.txt",
                )
            names[dim.dim_param] = label
    for value in [*proto.graph.input, *proto.graph.output]:
        for dim in axes_of(value):
            if dim.dim_param:
                dim.dim_param = names.get(dim.dim_param, dim.dim_param)


def strip(proto: onnx.ModelProto) -> None:
    """Remove the exporter's notes on every node.

    They are stack traces with paths of this machine, and a third of a small loop's file.
    """
    del proto.metadata_props[:], proto.graph.value_info[:]
    pending = [proto.graph, *proto.functions]
    while pending:
        graph = pending.pop()
        del graph.metadata_props[:]
        for part in ("node", "input", "output", "initializer"):
            for item in getattr(graph, part, []):
                strip_item(item)
        for node in graph.node:
            pending += [attribute.g for attribute in node.attribute if attribute.HasField("g")]


def strip_item(item) -> None:
    """Remove the notes of one item of a graph; a function's inputs are plain names."""
    if isinstance(item, str):
        return
    item.ClearField("doc_string")
    if hasattr(item, "metadata_props"):
        del item.metadata_props[:]


def constant(name: str, value, kind) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, kind), name)


def blanks_graph(special: dict, length: int, opset: int) -> onnx.ModelProto:
    """Lengths n (B,) -> tokens (B, length): base.templates.blank_rows as a graph.

    special: the ids of the special tokens by name.
    """
    nodes = [
        helper.make_node("Unsqueeze", ["n", "axis"], ["column"]),
        helper.make_node("Less", ["position", "column"], ["inside"]),
        helper.make_node("Sub", ["column", "one"], ["end"]),
        helper.make_node("Equal", ["position", "end"], ["last"]),
        helper.make_node("Where", ["inside", "mask", "pad"], ["unended"]),
        helper.make_node("Where", ["last", "eos", "unended"], ["unbegun"]),
        helper.make_node("Where", ["first", "bos", "unbegun"], ["tokens"]),
    ]
    constants = [
        constant("axis", [1], np.int64),
        constant("position", [range(length)], np.int32),
        constant("one", 1, np.int32),
        constant("first", [np.arange(length) == 0], bool),
        *(constant(name, special[name], np.int32) for name in ("mask", "pad", "bos", "eos")),
    ]
    graph = helper.make_graph(
        nodes,
        "blanks",
        [helper.make_tensor_value_info("n", TensorProto.INT32, ["batch"])],
        [helper.make_tensor_value_info("tokens", TensorProto.INT32, ["batch", length])],
        constants,
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def join(folder: Path, special: dict, length: int, opset: int, facts: dict) -> None:
    """Write captioner.onnx from encoder.onnx, condition.onnx and loop.onnx: image in, caption out.

    Rows have the model's longest length. Between condition and loop stands `blanks_graph`.
    """
    parts = {name: onnx.load(folder / f"{name}.onnx") for name in JOINED}
    parts["blanks"] = blanks_graph(special, length, opset)
    for part in parts.values():
        del part.metadata_props[:]
    # The loop keeps its names: add_prefix does not reach the names that an inner graph takes from
    # the outer graph.
    encoder, condition, blanks = (
        compose.add_prefix(parts[name], f"{name}/") for name in ("encoder", "condition", "blanks")
    )
    whole = compose.merge_models(encoder, condition, [("encoder/features", "condition/features")])
    kept = ["condition/keys", "condition/values", "condition/lengths"]
    whole = compose.merge_models(
        whole, blanks, [("condition/lengths", "blanks/n")], outputs=[*kept, "blanks/tokens"]
    )
    wires = [
        *((name, name.removeprefix("condition/")) for name in kept),
        ("blanks/tokens", "tokens"),
    ]
    outputs = ["condition/lengths", "filled", "step", "probability", "calls"]
    whole = compose.merge_models(whole, parts["loop"], wires, outputs=outputs)
    rename(whole.graph, "encoder/image", "image")
    rename(whole.graph, "condition/lengths", "lengths")
    for value in whole.graph.input:  # an adapter's file has the names of condition.onnx
        rename(whole.graph, value.name, value.name.removeprefix("condition/"))
    del whole.opset_import[:]  # merging lists the opset once per part
    whole.opset_import.append(helper.make_opsetid("", opset))
    write(whole, "captioner", folder / "captioner.onnx", facts)


def rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Give a value of a graph another name, wherever it is made or read."""
    for value in [*graph.input, *graph.output]:
        if value.name == old:
            value.name = new
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]
