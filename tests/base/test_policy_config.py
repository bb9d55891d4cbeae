"""The settings of a policy: rules between fields."""

import pytest

from base import policy_config
from base.files import UserError


def test_rules_between_fields():
    with pytest.raises(UserError, match="--bins 64"):
        policy_config.ActorConfig(bins=64)
    with pytest.raises(UserError, match="--encoder embedded with --sees state"):
        policy_config.GrounderConfig(sees="state", encoder="embedded")
