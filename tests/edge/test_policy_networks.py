"""The networks for ONNX compute what net/grounder.py and net/actor.py compute."""

import dataclasses

import pytest
import torch

from base.policy_config import ActorConfig, GrounderConfig
from edge.policy_networks import ActorNetwork, GrounderNetwork, WordsNetwork
from net.actor import Condition
from net.grounder import order_width
from net.policy import Policy

SIDE = 16


def policy(sees: str, head: str, frames: int = 1) -> Policy:
    torch.manual_seed(0)
    grounder = GrounderConfig(sees=sees, vocab_size=20, width=16, layers=1, cameras=2)
    size = ActorConfig(head=head, d_model=16, heads=2, layers=2, chunk=4, frames=frames)
    made = Policy(grounder, dataclasses.replace(size, order=order_width(grounder))).eval()
    made.actor.reach.data.fill_(0.03)
    return made


def seen_by(sees: str) -> dict:
    if sees == "pixels":
        return {"images": torch.randint(0, 256, (3, 2, SIDE, SIDE, 3), dtype=torch.uint8)}
    kinds = torch.randint(0, 2, (3, 8, 17)).float()
    kinds[:, 5:] = 0
    return {"kinds": kinds, "places": torch.rand(3, 8, 3), "real": kinds.sum(-1) > 0}


@pytest.mark.parametrize("sees", ["pixels", "state", "nothing"])
@torch.no_grad()
def test_words_and_places_are_the_grounders(sees):
    grounder = policy(sees, "l1").grounder
    words, lengths = torch.randint(0, 20, (3, 24)), torch.tensor([4, 1, 24])
    found = WordsNetwork(grounder)(words.int(), lengths.int())
    if sees == "nothing":
        assert torch.allclose(found[0], grounder.hear(words, lengths).order, atol=1e-5)
        return
    seen = seen_by(sees)
    expected = grounder(words, lengths, seen)
    queries, order = found
    assert torch.allclose(order, expected.order, atol=1e-5)
    named = {"things" if name == "places" else name: part for name, part in seen.items()}
    places, scores = GrounderNetwork(grounder, SIDE)(queries, order, named)
    assert torch.allclose(places, expected.places, atol=1e-5)
    assert torch.allclose(scores.exp(), expected.scores.exp(), atol=1e-5)


@pytest.mark.parametrize("head, frames", [("diffusion", 1), ("ar", 2), ("l1", 3)])
@torch.no_grad()
def test_numbers_are_the_actors(head, frames):
    actor = policy("state", head, frames).actor
    places, state, order = torch.rand(2, 2, 3), torch.rand(2, 8), torch.rand(2, 48)
    past = torch.rand(2, frames - 1, 2, 3), torch.rand(2, frames - 1, 8)
    moved = torch.rand(2, 4)
    told = Condition(places, state, order, moved, past if frames > 1 else None)
    network = ActorNetwork(actor)
    given = (moved, places, state, order, *past)
    if head == "l1":
        expected = actor.numbers_out(told, torch.zeros(2, 4, 4), None).clamp(-1, 1)
        found = network.l1(network.told(*given))
    else:
        tokens = torch.randint(0, 66, (2, 4, 4))
        expected, found = actor.logits(told, tokens), network(tokens.int(), *given)
    assert torch.allclose(found, expected, atol=1e-4)
