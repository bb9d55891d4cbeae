"""Real inputs: holes where they are promised, all noise levels, and only data of the right
tokenizer."""

from types import SimpleNamespace

import numpy as np
import pytest

from base.files import UserError
from edge import inputs

TOKENS = SimpleNamespace(pad=0, bos=1, eos=2, mask=3)
ROWS = [[1, 10, 11, 12, 13, 2], [1, 20, 2]]


def test_holes_spare_the_ends():
    tokens, lengths = inputs.with_holes(ROWS, TOKENS, 0.5)
    assert lengths.tolist() == [6, 3]
    assert (tokens == 3).sum(1).tolist() == [2, 1]
    assert (tokens[:, 0] == 1).all()
    assert tokens[0, 5] == 2 and tokens[1, 2:].tolist() == [2, 0, 0, 0]
    everything, _ = inputs.with_holes(ROWS, TOKENS, 1.0)
    assert (everything == 3).sum(1).tolist() == [4, 1]


def test_numbers_are_spread_evenly():
    assert inputs.evenly(9, 3).tolist() == [0, 4, 8]
    assert inputs.evenly(2, 5).tolist() == [0, 1]


def test_a_part_of_the_material():
    images = np.arange(3).reshape(3, 1)
    material = inputs.Material([[1], [2], [3]], images, ["a", "b", "c"], [{}, {}, {}])
    part = material.part(1, 3)
    assert part.rows == [[2], [3]] and part.paths == ["b", "c"]
    assert part.images.tolist() == [[1], [2]]
    assert inputs.Material([[1], [2]]).part(0, 1).images is None


def test_states_have_all_noise_levels(bundled):
    trained = inputs.open_trained(bundled.checkpoint)
    material = inputs.real_inputs(trained, bundled.data, "train", 8)
    feeds = list(inputs.states(trained, material, steps=4))
    assert len(feeds) == 4
    shares = [float(feed["share"].max()) for feed in feeds]
    assert shares[0] == 1.0 and shares == sorted(shares, reverse=True)
    for feed in feeds:
        assert set(feed) == {"tokens", "lengths", "share", "keys", "values"}


def test_another_tokenizer_is_refused(bundled):
    trained = inputs.open_trained(bundled.checkpoint)
    trained.tokenizer = SimpleNamespace(fingerprint="another")
    with pytest.raises(UserError, match="tokenizer"):
        inputs.real_inputs(trained, bundled.data, "val", 8)
