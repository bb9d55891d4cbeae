"""The types say what a checkpoint really holds."""

import torch

from base.tokenizer import Tokenizer
from loop import checkpoint
from loop.contracts import Checkpoint
from loop.contracts import Tokenizer as Asked


def test_every_key_of_a_state_is_in_the_type(conditional_world, captioner):
    for path in (
        conditional_world / "cross" / "resume.pt",
        captioner.parent / "resume.pt",
        conditional_world / "denoiser" / "last.pt",
    ):
        assert torch.load(path, weights_only=True).keys() <= Checkpoint.__annotations__.keys()


def test_the_type_has_no_key_that_its_page_does_not_explain():
    page = checkpoint.__doc__
    split = {"shards", "shard_files"}  # loop/shards.py explains these
    assert not {key for key in Checkpoint.__annotations__ if key not in page} - split


def test_the_tokenizer_is_what_the_loop_asks_for():
    asked = {name for name in vars(Asked) if not name.startswith("_")}
    tokenizer = Tokenizer.train(["a b"] * 3, 270)
    assert asked >= {"fingerprint", "to_json"} and all(hasattr(tokenizer, name) for name in asked)
