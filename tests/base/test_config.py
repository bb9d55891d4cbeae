"""Shared settings: named sizes, rules between fields, parts of a job."""

import pytest

from base import config
from base.config import CAPTIONS, NAMED_SIZES, ModelConfig, SampleConfig, TrainConfig
from base.files import UserError


@pytest.mark.parametrize("name", NAMED_SIZES)
def test_every_named_size_is_a_model(name):
    size = config.named_size(name)
    assert ModelConfig(**size).layers == size["layers"]


def test_a_misspelt_size_gets_a_suggestion():
    with pytest.raises(UserError, match="expected tiny"):
        config.named_size("tinny")


def test_rules_between_fields():
    with pytest.raises(UserError, match="d_model 100 with 8 heads"):
        ModelConfig(d_model=100, heads=8)
    with pytest.raises(UserError, match="--batch_size 10 with --accumulate 3"):
        TrainConfig(batch_size=10, accumulate=3)


def test_captions_have_settings_of_their_own():
    assert SampleConfig(**CAPTIONS).temperature == 0


def test_shards():
    assert config.read_shard(None) == (0, 1) and config.read_shard("2/8") == (2, 8)
    for text in ("8/8", "1", "a/b", "-1/2"):
        with pytest.raises(UserError, match="--shard"):
            config.read_shard(text)
