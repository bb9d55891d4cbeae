"""Experts in a graph: they compute what net/experts.py computes, by operators that TensorRT reads."""

import onnx
import pytest
import torch

from base.errors import UserError
from base.runtime import Runner
from edge import graphs, quantization, tensorrt
from edge.experts import EdgeExperts, before
from edge.networks import HIDDEN, Network
from net import experts
from tests.making.bundles import decisive, export
from tests.making.corpus import make_data, make_run
from tests.net.test_experts import LENGTHS, layer, made, some_tokens

GONE = {"NonZero", "ScatterND", "ScatterElements", "TopK", "If", "Loop"}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("more", [{}, {"mlp": "gelu", "expert_capacity": 2.0}])
def test_experts_equal_those_of_the_network(causal, more):
    part, x, real = layer(causal=causal, **more)
    bias = torch.where(real, 0.0, HIDDEN)[:, None, None]
    with torch.no_grad():
        found = EdgeExperts(part)(x, bias)
        expected = part(x, real[:, None, None])
    assert torch.allclose(found, expected, atol=1e-5)


def test_the_rank_is_that_of_training_in_ties_too():
    score = torch.randint(0, 4, (3, 5, 9)) / 4
    assert torch.equal(before(score), experts.ranks(score).float())


def test_the_network_equals_the_model():
    model, tokens = made(expert_capacity=1.3), some_tokens()
    with torch.no_grad():
        found = Network(model)(tokens.int(), LENGTHS.int())
        expected = model(tokens, lengths=LENGTHS)
    real = torch.arange(tokens.shape[1]) < LENGTHS[:, None]
    assert torch.allclose(found[real], expected[real], atol=1e-4)


def test_the_next_token_of_the_twin():
    """NextGraph with an empty cache equals the first position of the model."""
    model, tokens = made(causal=True), some_tokens()[:, :1]
    past = torch.zeros(len(tokens), 2, 2, 12, 8)
    with torch.no_grad():
        network = graphs.NextGraph(Network(model))
        found = network(tokens.int(), torch.zeros(1, dtype=torch.int32), past, past.clone())[0]
        expected = model(tokens)[:, 0]
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.long  # 47 CPU seconds: two graphs and their gate
def test_a_bundle_of_experts_passes_the_gate(tmp_path, capsys):
    """The gate compares logits within a tolerance, and texts token for token."""
    data = make_data(tmp_path / "data")
    words = ["--experts", "3", "--expert_capacity", "1.5"]
    path = decisive(make_run(data, tmp_path / "run", *words) / "best.pt")
    with pytest.raises(UserError, match="--precision int8, a network of 3 experts"):
        export(path, data, tmp_path / "small", "--precision", "int8")
    assert not (tmp_path / "small").exists()
    bundle = export(path, data, tmp_path / "bundle", "--inputs", "2")
    table = capsys.readouterr().out
    assert "100.0%" in table
    runner = Runner(bundle)
    assert tensorrt.lint(bundle / "step.onnx") == []
    graph = onnx.load(bundle / runner.facts["graphs"]["cpu"]["step"]).graph
    operators = {node.op_type for node in quantization.all_nodes(graph)}
    assert "MatMul" in operators and not GONE & operators
