"""The files are as promised: opset, metadata, types at the boundary, and no trace of this
machine."""

import logging
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from base import bundle
from base.config import ModelConfig
from base.files import UserError
from edge import onnx_files
from edge.graphs import Input, Sizes

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("name", ["encoder", "condition", "step", "loop", "captioner"])
def test_graphs_are_as_promised(bundled, name):
    proto = onnx.load(bundled.bundle / f"{name}.onnx")
    assert [entry.version for entry in proto.opset_import if entry.domain == ""] == [18]
    assert proto.ir_version <= onnx_files.IR_VERSION
    about = {entry.key: entry.value for entry in proto.metadata_props}
    assert about["graph"] == name
    assert about["build"] == bundle.read(bundled.bundle)["build"]
    for value in [*proto.graph.input, *proto.graph.output]:
        assert value.type.tensor_type.elem_type != onnx.TensorProto.INT64
    text = proto.SerializeToString()
    assert str(ROOT).encode() not in text, "a stack trace of this machine"
    assert b"site-packages" not in text
    kinds = [node.op_type for node in proto.graph.node]
    assert kinds.count("Loop") == (name in ("loop", "captioner"))


class Doubled(nn.Module):
    """A graph with one input."""

    outputs = ("y",)

    def example(self, sizes):
        return {"x": Input(torch.zeros(2, 3), {0: "batch"})}

    def forward(self, x):
        return x * 2


def test_a_fixed_axis_is_refused(tmp_path):
    """The same module is exported; then its free axis is fixed by hand, as torch may do."""
    module, path = Doubled(), tmp_path / "g.onnx"
    onnx_files.export(module, "g", path, Sizes(ModelConfig()), 18, {"build": "b"})
    proto = onnx.load(path)
    dim = proto.graph.input[0].type.tensor_type.shape.dim[0]
    assert dim.dim_param == "batch"
    dim.dim_value = 2
    with pytest.raises(UserError, match="x with 2 fixed at axis 0"):
        onnx_files.name_axes(proto, module.example(None))


def test_quiet_ends_even_after_an_error():
    with pytest.raises(ValueError), onnx_files.quiet():
        assert not logging.getLogger("torch").isEnabledFor(logging.ERROR)
        raise ValueError
    assert logging.getLogger("torch").isEnabledFor(logging.ERROR)
