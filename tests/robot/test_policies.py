"""Checkpoints of grounders and policies: whole, or refused in one line."""

import pytest
import torch

from base.errors import UserError
from loop import checkpoint
from robot import policies, sayings

CPU = torch.device("cpu")


def test_a_policy_holds_its_grounder(robot_world):
    opened = policies.open_policy(robot_world / "policy" / "best.pt", CPU)
    grounder, tokenizer, _ = policies.open_grounder(robot_world / "ground" / "best.pt")
    own = opened.policy.grounder.state_dict()
    for name, weight in grounder.state_dict().items():
        assert torch.equal(weight, own[name])
    assert tokenizer.fingerprint == opened.tokenizer.fingerprint
    assert not opened.policy.training and opened.cameras == []


def test_the_other_kind_is_refused(robot_world):
    with pytest.raises(UserError, match="kind 'grounding'"):
        policies.open_policy(robot_world / "ground" / "best.pt", CPU)
    with pytest.raises(UserError, match="kind 'policy'"):
        policies.open_grounder(robot_world / "policy" / "best.pt")
    with pytest.raises(UserError, match="kind 'policy'"):
        checkpoint.open_model(robot_world / "policy" / "best.pt")


def test_weights_that_do_not_fit_are_refused(robot_world, tmp_path):
    saved = torch.load(robot_world / "policy" / "best.pt", weights_only=True)
    saved["actor"]["d_model"] = 32
    checkpoint.save(tmp_path / "best.pt", saved)
    with pytest.raises(UserError, match="do not fit"):
        policies.open_policy(tmp_path / "best.pt", CPU)


def test_words_to_say_that_the_policy_has_not_are_refused(robot_world):
    opened = policies.open_policy(robot_world / "policy" / "best.pt", CPU)
    opened.saved["sayings"] = sayings.tokenizer().to_json()
    with pytest.raises(UserError, match="says 0 words"):
        opened.sayings()
    opened.saved["sayings"] = "no tokenizer"
    with pytest.raises(UserError, match="no tokenizer"):
        opened.sayings()
