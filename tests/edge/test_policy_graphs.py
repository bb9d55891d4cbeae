"""The parts of the loop are those of net/chunks.py, and the graphs have the promised inputs."""

import pytest
import torch

from base.policy_runner import BundleMaker
from edge import policy_graphs
from net import actor, chunks
from net.chunks import ChunkConfig


def test_the_median_is_the_actors():
    log_p = torch.randn(2, 8, 4, 65).mul(3).log_softmax(-1)
    for found, expected in zip(
        policy_graphs.median(log_p, actor.centres(65)), actor.median(log_p), strict=True
    ):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("order", ["time", "confidence"])
def test_what_is_revealed_first(order):
    config = actor.Actor(actor.ActorConfig(d_model=8, heads=1, layers=1))
    log_p, chosen = torch.randn(3, 8, 4, 65).log_softmax(-1), torch.randint(0, 65, (3, 8, 4))
    tokens = torch.randint(0, 66, (3, 8, 1)).clamp(min=64).expand(3, 8, 4)
    hidden = (tokens == 65).any(-1)
    chance = log_p.gather(-1, chosen[..., None])[..., 0].sum(-1)
    rng, making = torch.Generator(), ChunkConfig(order=order)
    for count in (1, 2):
        expected = chunks.steps_to_reveal(config, tokens, log_p, chosen, count, making, rng, 65)
        surest = torch.tensor([int(order == "confidence")])
        found = policy_graphs.steps_to_reveal(hidden, chance, torch.tensor([count]), surest)
        assert torch.equal(found, expected[..., 0])


def test_the_graphs_of_a_bundle(policy_bundled):
    maker = BundleMaker(policy_bundled.bundle)
    expected = {
        "words": ["words", "lengths"],
        "grounder": ["queries", "order", "kinds", "things", "real"],
        "step": ["tokens", "moved", "places", "state", "order"],
        "head": ["places", "state", "order", "prefix", "given", "calls", "by_confidence"],
    }
    for name, inputs in expected.items():
        session = maker.session(name)
        assert [value.name for value in session.get_inputs()] == inputs
        about = session.get_modelmeta().custom_metadata_map
        assert about["kind"] == "policy" and about["build"] == maker.facts["build"]
    assert list(maker.facts["graphs"]["cpu"]) == [*expected, "policy"]
