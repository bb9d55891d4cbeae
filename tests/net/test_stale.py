"""Approximate caches: where they are exact, where they are not, and that rows stay alone."""

import pytest
import torch

from base.config import SAMPLERS, SampleConfig
from net.samplers import row_generators, sample
from net.stale import StaleReader
from tests.test_model import BOS, MASK, PAD, toy

LENGTHS = torch.tensor([16, 11, 7])


def blanks():
    tokens = torch.full((3, 16), PAD)
    for row, length in zip(tokens, LENGTHS, strict=True):
        row[:length] = MASK
        row[0] = BOS
    return tokens


def write(denoise, tokens, first=0, **settings):
    config = SampleConfig(**{"sampler": "confidence", "steps": 12, "block_size": 4, **settings})
    rngs = row_generators(0, len(tokens), first)
    return sample(denoise, tokens, config, mask_id=MASK, rngs=rngs).tokens


@pytest.mark.parametrize("kind", ["prefix", "dual"])
@pytest.mark.parametrize(
    "sampler, shift", [*((name, False) for name in SAMPLERS), ("margin", True)]
)
def test_one_layer_is_exact(kind, sampler, shift):
    """Its keys come from the tokens alone, and outside of the block no token changes."""
    model, tokens = toy(layers=1, logit_shift=shift), blanks()
    stale = write(StaleReader(model, LENGTHS, 4, kind), tokens, sampler=sampler, revise=1)
    assert torch.equal(stale, write(model.bind(LENGTHS), tokens, sampler=sampler, revise=1))


@pytest.mark.parametrize("kind", ["prefix", "dual"])
def test_deeper_networks_are_not_exact(kind):
    """The first call of a block is the model's own. A later call sees old keys."""
    model, tokens = toy(layers=3), blanks()[:1, :12]
    stale, fresh, share = StaleReader(model, None, 4, kind), model.bind(), torch.ones(1)
    block = torch.zeros(1, 12, dtype=torch.bool)
    block[0, 4:8] = True
    assert torch.equal(stale(tokens, share, block), fresh(tokens, share, block))
    assert torch.equal(stale(tokens, share, block), stale(tokens, share, block))
    tokens[0, 4], block[0, 4] = 2, False
    old, new = stale(tokens, share, block), fresh(tokens, share, block)
    assert 1e-5 < (old - new).abs().max() < (new - new.mean(-1, keepdim=True)).abs().max()
    # A call that reaches over two blocks reads everything again.
    block[0, 9] = True
    assert torch.equal(stale(tokens, share, block), fresh(tokens, share, block))


@pytest.mark.parametrize("kind", ["prefix", "dual"])
def test_a_single_block_is_the_plain_sampler(kind):
    model, tokens = toy(layers=2), blanks()
    stale = write(StaleReader(model, LENGTHS, 16, kind), tokens, block_size=16)
    assert torch.equal(stale, write(model.bind(LENGTHS), tokens, block_size=16))


def test_prefix_reads_less_than_everything_and_dual_reads_less():
    read = []
    model = toy(layers=2)
    forward = model.forward
    model.forward = lambda tokens, **more: read.append(tokens.shape[1]) or forward(tokens, **more)
    for kind in ("prefix", "dual"):
        read.clear()
        write(StaleReader(model, None, 4, kind), torch.full((1, 16), MASK), steps=16)
        whole = [16] + [16] * 3 if kind == "prefix" else [16, 4, 4, 4]
        assert read[:4] == whole and len(read) == 16
        assert read[-4:] == [16, 4, 4, 4]
