"""Readers of pictures: the cache is exact, in rows of any length, with plans and with guesses."""

import pytest
import torch

from image.rows import Pairs
from net import picture_blocks
from net.picture_readers import reader_of
from tests.making.painted import make_painter, make_pictures


@pytest.fixture(scope="module", params=[0, 2], ids=["plain", "planned"])
def pairs(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("readers")
    return Pairs(make_pictures(folder, planned=request.param), "val")


def painter(pairs, **settings):
    plans = {"plan_lines": pairs.vocabulary.plan_lines(), "plan_reach": 2, "max_length": 90}
    return make_painter(pairs.vocabulary, **(plans if pairs.vocabulary.plan else {}), **settings)


def same(found, expected) -> None:
    finite = torch.isfinite(expected)
    assert torch.equal(finite, torch.isfinite(found))
    torch.testing.assert_close(found[finite], expected[finite], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("size", [1, 3, 4])
def test_cached_blocks_are_those_of_training(pairs, shift, size):
    """Two calls for each block, and the pass with two copies: the same logits.

    The rows differ in their number of words. Blocks of 4 leave a last block of a single token.
    """
    model = painter(pairs, block_sizes=str(size), logit_shift=shift)
    words = [captions[0] for captions in pairs.captions]
    assert len({len(row) for row in words}) > 1
    rows = pairs.rows(range(4), [0] * 4, ["picture"] * 4)
    clean, lengths, counts = rows["tokens"], rows["lengths"], rows["words"]
    number = picture_blocks.numbers(counts, lengths, clean.shape[1], size)
    trained = picture_blocks.bind(model, counts, lengths, size)
    reader, mask = reader_of(model, words, pairs.vocabulary.pad, size), pairs.vocabulary.mask
    drawn = torch.full_like(pairs.pictures, mask)
    for left in range(0, 9, size):
        end = min(left + size, 9)
        reader.begin(drawn, left)
        for known in sorted({0, (end - left) // 2}):  # places of the block that are there
            block = pairs.pictures[:, left:end].clone()
            block[:, known:] = mask
            masked = block == mask
            found = reader(block, torch.zeros(4), masked)
            again = reader(block.repeat_interleave(2, 0), None, masked.repeat_interleave(2, 0))
            place = torch.arange(clean.shape[1]) - counts[:, None]
            hidden = (number == 1 + left // size) & (place >= left + known)
            expected = trained(clean.masked_fill(hidden, mask), clean, hidden)
            same(found, expected)
            same(
                again, expected.view(4, -1, expected.shape[1]).repeat_interleave(2, 0).flatten(0, 1)
            )
        drawn[:, left:end] = pairs.pictures[:, left:end]


@torch.no_grad()
def test_pictures_as_a_whole_are_rows(pairs):
    """The same logits as whole rows, alone and with guesses."""
    model = painter(pairs)
    words = [captions[0] for captions in pairs.captions]
    rows = pairs.rows(range(4), [0] * 4, ["picture"] * 4)
    hidden = rows["free"] & (torch.arange(rows["tokens"].shape[1]) % 2 == 0)
    noised = rows["tokens"].masked_fill(hidden, pairs.vocabulary.mask)
    expected = model(noised, lengths=rows["lengths"], words=rows["words"], select=hidden)
    where = rows["words"][:, None] + torch.arange(9)
    reader = reader_of(model, words, pairs.vocabulary.pad, 0)
    reader.begin(noised, 0)
    picture, select = noised.gather(1, where), hidden.gather(1, where)
    same(reader(picture, None, select), expected)
    twice = reader(picture.repeat_interleave(2, 0), None, select.repeat_interleave(2, 0))
    parts = expected.split(select.sum(1).tolist())
    same(twice, torch.cat([part for part in parts for _ in range(2)]))
