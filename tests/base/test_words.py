"""Words: an id each, unknown words are said, nothing depends on case or punctuation."""

import pytest

from base import words
from base.errors import UserError
from base.tokenizer import Tokenizer


@pytest.fixture
def tokenizer():
    return words.from_texts(["pick up the red star", "put it in the tray"])


def test_each_word_has_an_id(tokenizer):
    assert tokenizer.vocab_size == 9 + 5
    rows = words.encode(tokenizer, ["the red star", "Pick up the RED star."])
    assert rows.shape == (2, words.LONGEST)
    assert rows[0, :3].tolist() == rows[1, 2:5].tolist()
    assert words.lengths(tokenizer, rows).tolist() == [3, 5]


def test_unknown_words_are_said(tokenizer):
    assert words.unknown(tokenizer, "Please pick the blue star!") == ["please", "blue"]
    ids = words.encode(tokenizer, ["please pick"])[0]
    assert ids[0] == tokenizer.unk and ids[1] != tokenizer.unk


def test_it_survives_its_file(tokenizer):
    again = Tokenizer.from_json(tokenizer.to_json())
    assert again.fingerprint == tokenizer.fingerprint
    text = ["put the star in the tray"]
    assert (words.encode(again, text) == words.encode(tokenizer, text)).all()


@pytest.mark.parametrize("text", ["", "  ", "..."])
def test_an_order_needs_a_word(tokenizer, text):
    with pytest.raises(UserError, match="at least one word"):
        words.encode(tokenizer, [text])


def test_a_long_order_is_cut(tokenizer):
    rows = words.encode(tokenizer, ["the star " * 40])
    assert words.lengths(tokenizer, rows).tolist() == [words.LONGEST]
