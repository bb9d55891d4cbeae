"""Shared settings: rules between fields, parts of a job."""

import pytest

from base import config
from base.config import CAPTIONS, SampleConfig, TrainConfig
from base.files import UserError


def test_rules_between_fields():
    with pytest.raises(UserError, match="--batch_size 10 with --accumulate 3"):
        TrainConfig(batch_size=10, accumulate=3)


def test_captions_have_settings_of_their_own():
    assert SampleConfig(**CAPTIONS).temperature == 0


def test_shards():
    assert config.read_shard(None) == (0, 1) and config.read_shard("2/8") == (2, 8)
    for text in ("8/8", "1", "a/b", "-1/2"):
        with pytest.raises(UserError, match="--shard"):
            config.read_shard(text)
