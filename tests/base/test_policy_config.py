"""The settings of a policy: rules between fields, and the names under which readers import them."""

import pytest

from base import config, policy_config
from base.files import UserError


def test_rules_between_fields():
    with pytest.raises(UserError, match="--bins 64"):
        policy_config.ActorConfig(bins=64)
    with pytest.raises(UserError, match="--encoder embedded with --sees state"):
        policy_config.GrounderConfig(sees="state", encoder="embedded")


def test_readers_import_them_from_config():
    for name in ("ActorConfig", "GrounderConfig", "HEADS"):
        assert getattr(config, name) is getattr(policy_config, name)
