"""The words of orders: one id per word, and [UNK] for a word that training never said."""

from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers

from base.errors import UserError
from base.tokenizer import SPECIAL, Tokenizer

LONGEST = 24  # words of an order


def from_words(words: Sequence[str]) -> Tokenizer:
    """A tokenizer with one id per word, in this order; the special tokens come last."""
    vocabulary = {word: index for index, word in enumerate([*words, *SPECIAL])}
    backend = Backend(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    # Words and punctuation marks, so that "cube." is a cube.
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("removed")]
    )
    backend.add_special_tokens(list(SPECIAL))
    return Tokenizer(backend)


def from_texts(texts: Sequence[str]) -> Tokenizer:
    """A tokenizer of all words in the texts, in the order of the alphabet."""
    words: set[str] = set()
    for text in texts:
        words.update(split(text))
    return from_words(sorted(words))


def split(text: str) -> list[str]:
    """The words of a text, as a tokenizer of `from_words` cuts it."""
    cleaned = "".join(letter if letter.isalnum() else " " for letter in text.lower())
    return cleaned.split()


def unknown(tokenizer: Tokenizer, text: str) -> list[str]:
    """The words of a text that the tokenizer does not know."""
    vocabulary = tokenizer.backend.get_vocab()
    return [word for word in split(text) if word not in vocabulary]


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> np.ndarray:
    """Texts as rows of ids, padded: (n, LONGEST) int16. Raises UserError for an empty text."""
    rows = np.full((len(texts), LONGEST), tokenizer.pad, np.int16)
    for row, text in zip(rows, texts, strict=True):
        ids = tokenizer.backend.encode(" ".join(split(text))).ids[:LONGEST]
        if not ids:
            raise UserError(f"the order {text!r}", "at least one word", "write an order")
        row[: len(ids)] = ids
    return rows


def lengths(tokenizer: Tokenizer, rows: np.ndarray) -> np.ndarray:
    """The number of words of each row of `encode`: (n,) int64."""
    return (rows != tokenizer.pad).sum(-1)
