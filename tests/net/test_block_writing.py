"""Writing block by block: the cache changes nothing, rows end, long texts slide."""

import pytest
import torch

from base.config import SAMPLERS, SPECULATIVE, SampleConfig
from base.files import UserError
from net import block_writing, blocks
from net.block_writing import Writing
from net.samplers import row_generators
from tests.test_model import BOS, MASK, PAD, toy

EOS = 8


class Uncached:
    """Reads the whole text again in every call."""

    def __init__(self, model, size):
        self.model, self.size = model, size

    def begin(self, text, left):
        self.text, self.left = text, left

    def __call__(self, tokens, share, select):
        before = self.text[:, : self.left].repeat_interleave(len(tokens) // len(self.text), 0)
        seen = torch.cat([before, tokens], 1)
        position, longest = torch.arange(seen.shape[1]), self.model.config.max_length
        block = position // self.size
        # A finished block is read beside its successor, which decides what is forgotten.
        end = torch.where(position < self.left, block + 2, block + 1) * self.size
        attend = (block[:, None] >= block) & (position >= (end - longest)[:, None])
        real = seen != PAD
        real[:, : self.left] = True
        real[:, self.left] |= ~real[:, self.left :].any(1)
        logits = self.model(seen, attend=attend[None, None] & real[:, None, None])
        return logits[:, self.left :][select]


def blanks(lengths):
    """[BOS], masks, and [PAD] behind each row."""
    position = torch.arange(max(lengths))
    tokens = torch.where(position < torch.tensor(lengths)[:, None], MASK, PAD)
    tokens[:, 0] = BOS
    return tokens


def write(model, tokens, size, first=0, eos=EOS, **settings):
    return block_writing.sample(
        model,
        tokens,
        SampleConfig(**{"steps": 8, **settings}),
        size=size,
        mask_id=MASK,
        rngs=row_generators(0, len(tokens), first),
        eos=eos,
        pad=PAD,
    )


def uncached(model, tokens, size, steps, eos=EOS, **settings):
    settings = SampleConfig(steps=steps, **settings)
    rngs = row_generators(0, len(tokens))
    writing = Writing(Uncached(model, size), tokens, settings, MASK, eos, PAD, rngs)
    return writing.fill(size, None, False)


@pytest.mark.parametrize(
    "sampler, shift", [*((name, False) for name in SAMPLERS), ("confidence", True)]
)
def test_the_cache_changes_nothing(sampler, shift):
    """Token for token and call for call, with rows of several lengths and a row with a prompt."""
    model, tokens = toy(logit_shift=shift), blanks([16, 11, 14, 16])
    tokens[3, 1:7] = torch.tensor([1, 2, 3, 4, 5, 6])
    for size, steps in ((1, 1), (4, 2), (8, 4)):
        cached = write(model, tokens, size, sampler=sampler)
        plain = uncached(model, tokens, size, steps, sampler=sampler)
        assert torch.equal(cached.tokens, plain.tokens)
        assert torch.equal(cached.step, plain.step) and cached.calls == plain.calls
        assert torch.allclose(cached.log_prob, plain.log_prob, atol=1e-5)
        assert (cached.tokens != MASK).all()
    more = [{"revise": 1}]
    more += [{"speculate": 2}] if sampler in SPECULATIVE else []
    for flags in more:
        cached = write(model, tokens, 4, sampler=sampler, **flags)
        plain = uncached(model, tokens, 4, 2, sampler=sampler, **flags)
        assert torch.equal(cached.tokens, plain.tokens) and cached.calls == plain.calls
        assert torch.equal(cached.rows, plain.rows)


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("size, steps", [(1, 1), (4, 2), (8, 4)])
def test_texts_longer_than_the_model(size, steps, shift):
    """The window slides, the positions grow, and the cache still changes nothing."""
    model, tokens = toy(logit_shift=shift), blanks([40, 40])
    cached = write(model, tokens, size, eos=-1)
    assert torch.equal(cached.tokens, uncached(model, tokens, size, steps, eos=-1).tokens)
    assert (cached.tokens != MASK).all() and (cached.step[:, 1:] > 0).all()


def test_a_row_draws_what_it_draws_alone():
    model, lengths = toy(), [16, 11, 14]
    together = write(model, blanks(lengths), 4)
    for row, length in enumerate(lengths):
        alone = write(model, blanks([length]), 4, first=row)
        assert torch.equal(together.tokens[row, :length], alone.tokens[0])
        assert torch.equal(together.step[row, :length], alone.step[0])


def test_a_finished_block_costs_no_call():
    """Blocks of one token: as many calls as tokens, and each call reads two tokens."""
    model, read = toy(), []
    model.embedding.register_forward_hook(lambda module, inputs, output: read.append(output))
    drawn = write(model, blanks([12]), 1, eos=-1)
    assert drawn.calls == len(read) == 11 and {x.shape[1] for x in read} == {2}
    assert drawn.step[0].tolist() == list(range(12))


def test_a_drawn_end_ends_its_row():
    drawn = write(toy(), blanks([16] * 8), 4)
    ended = 0
    for tokens, step in zip(drawn.tokens.tolist(), drawn.step.tolist(), strict=True):
        end = tokens.index(EOS) + 1 if EOS in tokens else 16
        ended += end < 16
        assert tokens[end:] == [PAD] * (16 - end) and not any(step[end:])
        assert PAD not in tokens[:end] and all(step[1:end])
    assert ended
    template = blanks([16] * 8)
    template[:, 12] = 3  # a word behind the blank: the text does not end before it
    drawn = write(toy(), template, 4)
    assert (drawn.tokens[:, :13] != PAD).all() and (drawn.tokens[:, 12] == 3).all()


def test_the_trace_is_the_exact_likelihood_of_blocks_of_one_token():
    model = toy()
    drawn = write(model, blanks([12] * 4), 1, eos=-1)
    free = torch.ones_like(drawn.tokens, dtype=torch.bool)
    free[:, 0] = False
    (exact,) = blocks.bound_estimates(
        blocks.bind(model, 1), drawn.tokens, free, size=1, mask_id=MASK, rng=torch.Generator()
    )
    assert torch.allclose(drawn.log_prob.double().sum(1), -exact["nats"], atol=1e-4)


def test_each_finished_block_is_told():
    seen = []
    block_writing.sample(
        toy(),
        blanks([10]),
        SampleConfig(steps=16),
        size=4,
        mask_id=MASK,
        rngs=row_generators(0, 1),
        eos=-1,
        pad=PAD,
        finished=lambda tokens: seen.append(int((tokens == MASK).sum())),
    )
    assert seen == [6, 2, 0]


def test_refusals():
    with pytest.raises(UserError, match="blocks of at most half of the model's length 16"):
        write(toy(), blanks([20]), 12)
    prompt = blanks([20])
    prompt[:, 1:14] = 1
    with pytest.raises(UserError, match="14 given tokens; expected at most 12"):
        write(toy(), prompt, 4)
