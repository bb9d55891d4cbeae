"""Named sizes, and rules between the settings of a network."""

import pytest

from base import architecture
from base.architecture import NAMED_SIZES, ModelConfig
from base.files import UserError


@pytest.mark.parametrize("name", NAMED_SIZES)
def test_every_named_size_is_a_model(name):
    size = architecture.named_size(name)
    assert ModelConfig(**size).layers == size["layers"]


def test_a_misspelt_size_gets_a_suggestion():
    with pytest.raises(UserError, match="expected tiny"):
        architecture.named_size("tinny")


def test_rules_between_fields():
    with pytest.raises(UserError, match="d_model 100 with 8 heads"):
        ModelConfig(d_model=100, heads=8)
    with pytest.raises(UserError, match="--quality_layers 1 with --lora_rank"):
        ModelConfig(quality_layers=1, lora_rank=2)


def test_flags_that_trainers_skip_are_settings():
    """A misspelt name would be skipped without a word."""
    skipped = {*architecture.NOT_OF_CAPTIONERS, *architecture.OF_CAPTIONERS}
    assert skipped <= set(ModelConfig.__dataclass_fields__)
