"""Pictures in blocks: the twin at blocks of one token, a chain that sums to 1, what sees what."""

import itertools
from functools import partial

import pytest
import torch

from base.errors import UserError
from net import picture_blocks, turns, twin
from net.picture_blocks import bind, calls_of_blocks, choose, numbers, widest
from tests.making.painted import make_painter
from tests.net.test_painter import TINY

SIZES = "1,2,4"


def network(shift: bool = True, sizes: str = SIZES):
    return make_painter(TINY, picture_side=2, max_length=9, logit_shift=shift, block_sizes=sizes)


def rows_of_two():
    """A short row with padding, and a long row: tokens, words, lengths, which are free."""
    short = [TINY.bos, 2, TINY.eos, 0, 1, 1, 0, TINY.pad]
    long = [TINY.bos, 2, 3, TINY.eos, 1, 0, 0, 1]
    words, lengths = torch.tensor([3, 4]), torch.tensor([7, 8])
    place = torch.arange(8) - words[:, None]
    return torch.tensor([short, long]), words, lengths, (place >= 0) & (place < 4)


def test_numbers_by_hand():
    _, words, lengths, _ = rows_of_two()
    expected = [[0, 0, 0, 1, 1, 2, 2, -1], [0, 0, 0, 0, 1, 1, 2, 2]]
    assert numbers(words, lengths, 8, 2).tolist() == expected
    assert numbers(words, None, 8, 3)[1].tolist() == [0, 0, 0, 0, 1, 1, 1, 2]


def test_blocks_of_one_token_are_the_twin():
    """The same weights run causally, without words: -log p of pictures agrees to 1e-5.

    With words they differ, because words see both sides here.
    """
    model, causal = network(), make_painter(TINY, True, picture_side=2, max_length=9)
    causal.load_state_dict(model.state_dict())
    pictures = list(itertools.product(range(2), repeat=4))
    tokens = torch.tensor([[TINY.bos, *picture] for picture in pictures])
    words = torch.ones(len(tokens), dtype=torch.long)
    free = torch.arange(5).expand(len(tokens), -1) > 0
    exact = twin.likelihoods(partial(causal, words=words), tokens, free)
    number = numbers(words, None, 5, 1)
    (found,) = turns.bound_estimates(
        bind(model, words, None, 1),
        tokens,
        free,
        number,
        mask_id=TINY.mask,
        rng=torch.Generator().manual_seed(0),
        draws=1,
    )
    assert torch.allclose(found["nats"], exact, atol=1e-5)
    assert found["nats"].neg().exp().sum().item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("shift", [True, False])
def test_a_block_sees_what_stands_before_it(shift):
    """Its own noised tokens, words and earlier blocks; not its own clean tokens, nor later ones."""
    tokens, words, lengths, free = rows_of_two()
    model, number = network(shift), numbers(words, lengths, 8, 2)
    noised = tokens.masked_fill(free & (torch.arange(8) % 2 == 0), TINY.mask)
    first = (number == 1) & (noised == TINY.mask)

    def logits(noised, clean):
        found = bind(model, words, lengths, 2)(noised, clean, first)
        return found[:, :2]  # of the codes; all others are minus infinity

    before = logits(noised, tokens)
    swapped = torch.where(tokens < 2, 1 - tokens, tokens)
    later, own = number == 2, number == 1
    assert torch.equal(before, logits(noised, torch.where(later | own, swapped, tokens)))
    assert torch.equal(before, logits(torch.where(later, swapped, noised), tokens))
    words_changed = torch.where(tokens == 2, 3, tokens)
    assert not torch.allclose(before, logits(noised, words_changed), atol=1e-3)
    seen = own & (noised != TINY.mask)
    assert not torch.allclose(before, logits(torch.where(seen, swapped, noised), tokens), atol=1e-3)


def test_which_size():
    """The smallest that the calls are enough for; the largest for a part; 0 is the whole."""
    config = network().config
    assert [choose(config, 0, steps) for steps in (1, 2, 3, 4, 9)] == [0, 2, 2, 1, 1]
    assert choose(config, 2, 2) == 2 and choose(config, 4, 1) == 0
    assert widest(config) == 0 and widest(network(sizes="1,2").config) == 2
    plain = make_painter(TINY, picture_side=2, max_length=9).config
    assert choose(plain, 0, 1) == widest(plain) == 0
    for where, size, steps, expected in (
        (config, 3, 9, "expected one of 1, 2, 4"),
        (plain, 3, 9, "draws pictures as a whole; expected a network of"),
        (config, 1, 3, "found 3 calls .* expected at least 4 calls"),
        (network(sizes="1").config, 0, 3, "expected at least 4 calls"),
    ):
        with pytest.raises(UserError, match=expected):
            choose(where, size, steps)
    for size in ("5", "10"):
        with pytest.raises(UserError, match="sizes of at most 4 tokens"):
            network(sizes=size)


def test_calls_are_shared_by_the_blocks():
    assert calls_of_blocks(16, 1) == [16]
    assert calls_of_blocks(8, 4) == [2, 2, 2, 2]
    assert sum(calls_of_blocks(10, 4)) == 10 and calls_of_blocks(2, 4) == [1, 1, 1, 1]
    assert picture_blocks.calls_of_blocks(0, 2) == [1, 1]
