"""The tokenizer: any text survives, special tokens are last, mistakes are one line."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, trainers

from base.files import UserError
from base.tokenizer import LONGEST_WORD, NEVER_IN_UTF8, SPECIAL, Tokenizer, byte_letters


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


@pytest.mark.parametrize("letter", ["a", "7", "=", "\n", " ", "é"])
def test_an_unbroken_run_is_cut_while_a_tokenizer_learns(letter):
    """A run is learnt as its pieces of 1,000 bytes: a longer run gives the same merges.

    Without the cut, every doubling of the run added a merge and took four times as long.
    """
    size = LONGEST_WORD // len(letter.encode())
    one = Tokenizer.train([letter * size] * 80, 400)
    long = Tokenizer.train([letter * size * 80], 400)
    assert long.to_json() == one.to_json()
    assert long.token_bytes().max() == LONGEST_WORD
    assert long.decode(long.encode(letter * 12_345)) == letter * 12_345


def test_the_cut_changes_no_tokenizer_of_words():
    """The merges that tokenizers learns without any cut, from words of at most 1,000 bytes."""
    texts = ["Ann had a red hen.", "b" * LONGEST_WORD, "The hen saw a red cat.", "1,000 hens"] * 3
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = [sign for byte, sign in byte_letters().items() if byte not in NEVER_IN_UTF8]
    trainer = trainers.BpeTrainer(vocab_size=295, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    merges = json.loads(backend.to_str())["model"]["merges"]
    ours = json.loads(Tokenizer.train(texts, 300).to_json())
    assert ours["model"]["merges"] == merges and len(merges) > 30
    assert ours["pre_tokenizer"]["type"] == "ByteLevel"  # alone: a text is encoded in whole words


def test_half_a_character_is_replaced(tokenizer):
    assert tokenizer.decode(tokenizer.encode("a\udc80b")) == "a\ufffdb"


@pytest.mark.parametrize("size", [0, 100, 70_000])
def test_a_vocabulary_has_limits(size):
    with pytest.raises(UserError, match=f"--vocab_size {size}"):
        Tokenizer.train(["a"], size)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="no .*tokenizer.json"):
        Tokenizer.load(tmp_path / "tokenizer.json")
