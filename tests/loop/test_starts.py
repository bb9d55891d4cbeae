"""Starts: what fits is taken, other tokenizers and other shifts are refused."""

from dataclasses import replace

import pytest
import torch

from base.config import ModelConfig
from base.files import UserError
from base.tokenizer import Tokenizer
from loop import checkpoint, starts
from model import Denoiser
from net import soft_masks
from tests.loop.test_checkpoint import SIZE, content


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["Ann had a cat."] * 5, 280)


def test_a_start_takes_what_fits(tokenizer, tmp_path, capsys):
    checkpoint.save(tmp_path / "best.pt", content(tokenizer))
    vocabulary = {"vocab_size": tokenizer.vocab_size, "output_size": tokenizer.output_size}
    deeper = Denoiser(ModelConfig(**SIZE | {"layers": 2}, **vocabulary))
    starts.start_from(deeper, tmp_path / "best.pt", tokenizer.fingerprint)
    expected = content(tokenizer)["weights"]["embedding.weight"]
    assert torch.equal(deeper.embedding.weight, expected)
    assert "tensors; new:" in capsys.readouterr().err
    wider = Denoiser(ModelConfig(**SIZE | {"d_model": 32}, **vocabulary))
    for model, fingerprint, message in (
        (deeper, "another", "tokenizer another"),
        (wider, tokenizer.fingerprint, "of width 16; expected the width of the new network, 32"),
    ):
        with pytest.raises(UserError, match=message):
            starts.start_from(model, tmp_path / "best.pt", fingerprint)


@pytest.mark.parametrize(
    "causal, shift, wanted, fits",
    [
        (True, False, False, True),
        (True, False, True, True),
        (False, True, True, True),
        (False, False, True, False),
        (False, True, False, False),
    ],
)
def test_a_shift_stays_a_shift(causal, shift, wanted, fits):
    """A twin starts both kinds; other networks start their own kind."""
    start = ModelConfig(causal=causal, logit_shift=shift)
    if fits:
        starts.check_shift(start, ModelConfig(logit_shift=wanted), "best.pt")
    else:
        with pytest.raises(UserError, match="best.pt, a network with.* a logit shift"):
            starts.check_shift(start, ModelConfig(logit_shift=wanted), "best.pt")


@pytest.mark.parametrize("layers", [0, 1])
def test_a_captioner_that_reads_changes_too_starts_as_the_old_one(
    tokenizer, tmp_path, monkeypatch, layers
):
    """Behind the old features stand others: at first they change nothing."""
    torch.manual_seed(0)
    size = (
        SIZE
        | {"patch_layers": layers}
        | {"vocab_size": tokenizer.vocab_size, "output_size": tokenizer.output_size}
    )
    old = soft_masks.build(ModelConfig(**size, condition_width=6)).eval()
    for block in old.blocks:
        torch.nn.init.ones_(block.cross.gate)
    if layers:
        torch.nn.init.normal_(old.reader.leave.weight)  # as after training
    opened = old, tokenizer, {}
    monkeypatch.setattr(starts.checkpoint, "open_model", lambda path, noises: opened)
    new = soft_masks.build(ModelConfig(**size, condition_width=12)).eval()
    starts.start_from(new, tmp_path, tokenizer.fingerprint, condition_width=6)
    tokens, seen = torch.zeros(2, 5, dtype=torch.long), torch.randn(2, 4, 12)
    wide = new(tokens, condition=new.keys_values(seen))
    assert torch.allclose(wide, old(tokens, condition=old.keys_values(seen[..., :6])), atol=1e-6)
    # Without the width, features of another width start anew.
    starts.start_from(soft_masks.build(new.config), tmp_path, tokenizer.fingerprint)
    for other in {0, 1, 2} - {layers}:
        more = soft_masks.build(replace(new.config, patch_layers=other))
        if layers:
            with pytest.raises(UserError, match="of 1 patch layers.*--patch_layers 1"):
                starts.start_from(more, tmp_path, tokenizer.fingerprint)
        else:  # new layers begin as the identity
            starts.start_from(more, tmp_path, tokenizer.fingerprint, condition_width=6)
            found = more.eval()(tokens, condition=more.keys_values(seen))
            assert torch.allclose(found, wide, atol=1e-6)
