"""Rows to fill: their lengths in each mode, their ends, what is refused."""

from types import SimpleNamespace

import pytest

from base.files import UserError
from base.tokenizer import Tokenizer
from text.story_rows import make_rows

SAVED = {"objective": "diffusion", "statistics": {"row_lengths": [0, 0, 0, 0, 0, 2, 0, 3]}}
TWIN = SAVED | {"objective": "ar"}


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["Ann had a red hen."] * 20, 280)


def rows(tokenizer, saved=SAVED, size=0, **flags):
    story = {"num_samples": 8, "length": 0, "template": None, "open_end": False, "seed": 0}
    return make_rows(SimpleNamespace(**(story | flags)), tokenizer, saved, 16, size)


def test_lengths_and_ends(tokenizer):
    """Drawn from training, but for the twin and blocks of one token, which end their texts."""
    for size in (0, 4):
        drawn = rows(tokenizer, size=size)
        assert {len(row) for row in drawn} == {5, 7}
        assert all(row[-1] == tokenizer.eos for row in drawn)
    assert {len(row) for row in rows(tokenizer, TWIN)} == {16}
    for row in rows(tokenizer, size=1):
        assert len(row) == 16 and row[-1] == tokenizer.mask
    assert rows(tokenizer, length=9, open_end=True)[0][-1] == tokenizer.mask
    assert {len(row) for row in rows(tokenizer, size=4, length=40)} == {40}
    assert rows(tokenizer, num_samples=3) == rows(tokenizer)[:3]


def test_refusals(tokenizer):
    for size, length, message in ((0, 17, "3 to 16, the model's length"), (4, 2, "--length 2")):
        with pytest.raises(UserError, match=message):
            rows(tokenizer, size=size, length=length)
    with pytest.raises(UserError, match="at most 16, the model's length"):
        rows(tokenizer, size=4, template="a [MASK*40]")
