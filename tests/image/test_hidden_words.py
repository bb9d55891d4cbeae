"""Hidden words: which words a row hides, how often, and that only rows for pictures hide any."""

import numpy as np
import pytest
import torch

from image import hidden_words
from image.hidden_words import ATTRIBUTES
from image.rows import PairBatches, Pairs
from tests.making.painted import make_pictures


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return Pairs(make_pictures(tmp_path_factory.mktemp("hidden"), planned=2), "train")


@pytest.mark.parametrize("names", [(), ("shape",), ("fill", "colour"), ATTRIBUTES])
def test_the_caption_and_the_named_attributes_are_hidden(pairs, names):
    """Two rows of other lengths; [BOS], the background, places, sizes and the picture stay."""
    vocabulary = pairs.vocabulary
    numbers = [
        0,
        next(n for n in range(9) if len(pairs.captions[n][0]) != len(pairs.captions[0][0])),
    ]
    rows = pairs.rows(numbers, [0, 0], ["picture", "picture"])
    tokens, words = rows["tokens"], rows["words"]
    hidden = hidden_words.hide(tokens, words, vocabulary.plan, vocabulary.mask, [names, names])
    for row, number in enumerate(numbers):
        n = int(words[row])
        expected = pairs.captions[number][0] + pairs.pictures[number].tolist()
        offsets = {"fill": 3, "colour": 4, "shape": 5}
        if names:
            expected[1 : n - 13] = [vocabulary.mask] * (n - 14)
        for name in names:
            for thing in (0, 6):
                expected[n - 13 + 1 + thing + offsets[name]] = vocabulary.mask
        assert hidden[row, : len(expected)].tolist() == expected
    both = hidden_words.places(tokens.shape[1], words, vocabulary.plan, names)
    assert torch.equal(tokens.masked_fill(both, vocabulary.mask), hidden)


def test_a_share_of_the_rows_hides_each_attribute_equally_often():
    drawn = hidden_words.draw(4000, 0.25, np.random.default_rng(0))
    hiding = [tuple(names) for names in drawn if names]
    assert abs(len(hiding) / 4000 - 0.25) < 0.02
    assert len(set(hiding)) == 7  # every set of attributes but the empty one
    for chosen in set(hiding):
        assert abs(hiding.count(chosen) / len(hiding) - 1 / 7) < 0.04
    assert not any(hidden_words.draw(50, 0.0, np.random.default_rng(0)))


def test_only_rows_for_pictures_hide_words(pairs):
    """The other rows, and what is free, are those of a run that hides nothing."""
    shares = {"picture": 0.4, "words": 0.2, "both": 0.2, "plan": 0.2}
    plain = PairBatches(pairs, shares, 10, 2, seed=0)
    hiding = PairBatches(pairs, shares, 10, 2, seed=0, share_hidden=0.99)
    mask = pairs.vocabulary.mask
    hidden = 0
    for before, after in zip(plain(1), hiding(1), strict=True):
        assert torch.equal(before["free"], after["free"])
        changed = before["tokens"] != after["tokens"]
        assert (after["tokens"][changed] == mask).all() and not changed[after["free"]].any()
        for row in changed.any(1).nonzero().flatten().tolist():
            n = int(after["words"][row])
            free = after["free"][row]
            assert free[n:].any() and not free[:n].any()  # a row for a picture, given its words
        hidden += int(changed.any(1).sum())
    assert hidden == 4
