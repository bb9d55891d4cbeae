"""A policy hands the grounder's places to its actor."""

import torch

from base.policy_config import ActorConfig, GrounderConfig
from net.policy import Policy
from tests.net.test_grounder import order, table


def test_the_actor_is_told_what_was_found():
    grounder = GrounderConfig(sees="state", vocab_size=12, kinds=5, longest=6)
    policy = Policy(grounder, ActorConfig(d_model=16, layers=1)).eval()
    words, lengths = order()
    state = torch.randn(3, 8)
    told = policy.told(words, lengths, table(), state)
    found = policy.grounder(words, lengths, table())
    assert torch.equal(told.places, found.places)
    assert torch.equal(told.order, found.order)
    assert told.state is state
    assert told.places.requires_grad  # eyes that learn along get gradients
    policy.grounder.requires_grad_(False)
    assert not policy.told(words, lengths, table(), state).places.requires_grad
    parts = policy.grounder.num_parameters(), policy.actor.num_parameters()
    assert policy.num_parameters() == sum(parts)
