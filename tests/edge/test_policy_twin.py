"""The twin's chunk with a cache is its chunk without: step by step, around committed actions."""

import numpy as np
import onnxruntime
import pytest
import torch

from edge import onnx_files
from edge.graphs import Sizes
from edge.policy_networks import ActorNetwork
from edge.policy_twin import TwinGraph
from net.actor import Condition
from net.chunks import ChunkConfig, Trace, calls_of, make
from tests.edge.test_policy_networks import policy


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An actor that is told two observations, and the session of its graph."""
    actor = policy("state", "ar", frames=2).actor
    torch.nn.init.normal_(actor.out.weight, std=0.5)  # so that no two bins are equally likely
    path = tmp_path_factory.mktemp("twin") / "head.onnx"
    onnx_files.export(TwinGraph(ActorNetwork(actor)), "head", path, Sizes(actor.size), 20, {})
    return actor, onnxruntime.InferenceSession(path.read_bytes())


@pytest.mark.parametrize("given", [0, 1, 3])
def test_chunks_are_those_of_torch(exported, given):
    actor, session = exported
    generator = torch.Generator().manual_seed(given)
    rows, earlier = 3, actor.config.frames - 1
    places, state, order = (
        torch.rand(rows, *shape, generator=generator) for shape in ((2, 3), (8,), (48,))
    )
    past = torch.rand(rows, earlier, 2, 3), torch.rand(rows, earlier, 8)
    prefix = torch.rand(rows, 4, 4, generator=generator) * 2 - 1
    told = Condition(places, state, order, None, past)
    trace = Trace()
    start = prefix[:, :given] if given else None
    expected = make(actor, told, ChunkConfig(), prefix=start, trace=trace)
    inputs = {"places": places, "state": state, "order": order, "prefix": prefix}
    inputs |= {"given": torch.tensor([given], dtype=torch.int32)}
    inputs |= {"past_places": past[0], "past_states": past[1]}
    found = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    actions, revealed, nats, entropy = found
    assert np.allclose(actions, expected, atol=1e-5)
    assert np.array_equal(revealed, calls_of(trace.stages, actor.config.bins, given))
    assert np.allclose(nats, trace.nats, atol=1e-4)
    assert np.allclose(entropy, trace.entropy, atol=1e-4)
