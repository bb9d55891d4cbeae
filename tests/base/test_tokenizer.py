"""The tokenizer: any text survives, special tokens are last, mistakes are one line."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from base.files import UserError
from base.tokenizer import SPECIAL, Tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["Ann had a red hen. The hen saw a red cat."] * 20, 300)


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=200, deadline=None)
def test_any_text_survives(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.token_bytes()[ids].sum() == len(text.encode())
    assert (ids < tokenizer.eos).all()


def test_special_tokens(tokenizer):
    """They are the last ids, [EOS] is the only one worth emitting, and their names in a text are letters."""
    ids = [tokenizer.eos, tokenizer.unk, tokenizer.pad, tokenizer.bos, tokenizer.mask]
    assert (
        ids == list(range(tokenizer.vocab_size - 5, tokenizer.vocab_size))
        and tokenizer.output_size == tokenizer.pad
    )
    text = "".join(SPECIAL) + "\n<|endoftext|>\n"
    assert tokenizer.decode(tokenizer.encode(text)) == text and not set(ids) & set(
        tokenizer.encode(text).tolist()
    )
    assert [tokenizer.piece(id) for id in ids] == list(SPECIAL)
    assert tokenizer.decode([-1, *ids, 60_000]) == ""
    again = Tokenizer.from_json(tokenizer.to_json())
    assert again.fingerprint == tokenizer.fingerprint
    with pytest.raises(UserError, match="no tokenizer"):
        Tokenizer.from_json("{}")
    with pytest.raises(UserError, match="without"):
        Tokenizer.from_json(tokenizer.to_json().replace("[MASK]", "[MAKS]"))
    assert Tokenizer.train(["añ"] * 3, 260).vocab_size <= 260


def test_half_a_character_is_replaced(tokenizer):
    assert tokenizer.decode(tokenizer.encode("a\udc80b")) == "a\ufffdb"


@pytest.mark.parametrize("size", [0, 100, 70_000])
def test_a_vocabulary_has_limits(size):
    with pytest.raises(UserError, match=f"--vocab_size {size}"):
        Tokenizer.train(["a"], size)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="no .*tokenizer.json"):
        Tokenizer.load(tmp_path / "tokenizer.json")
