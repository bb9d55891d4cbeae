"""What training does to the words of orders, so that wordings that it never said are understood.

hidden  words become [UNK], colours and shapes excepted: an unknown verb is no surprise
stray   a small word slips in: "of" alone is no relation, as in "take hold of the star"

Shapes: W words of an order, padded.
"""

from dataclasses import dataclass

import numpy as np

from base import words
from base.tokenizer import Tokenizer
from robot import stills

# Words that decide nothing by themselves, and that stand beside words that do.
STRAY = ("of", "to", "and", "it", "you", "now", "please")


@dataclass
class Hearing:
    """unknown: share of the words that are hidden; 1: all. stray: share of the orders in which a
    small word slips in."""

    unknown: float = 0.0
    stray: float = 0.0

    @property
    def deaf(self) -> bool:
        """Whether no word is heard: a control that shows what can be guessed."""
        return self.unknown == 1

    def heard(
        self, tokenizer: Tokenizer, ids: np.ndarray, rng: np.random.Generator | None
    ) -> np.ndarray:
        """Orders (.., W) int64 as training hears them. Without rng only the deaf miss words."""
        if self.deaf:
            return np.where(ids == tokenizer.pad, ids, tokenizer.unk)
        if rng is None:
            return ids
        if self.stray:
            ids = insert_words(tokenizer, ids, self.stray, rng)
        return hide_words(tokenizer, ids, self.unknown, rng) if self.unknown else ids


def hide_words(
    tokenizer: Tokenizer, ids: np.ndarray, share: float, rng: np.random.Generator
) -> np.ndarray:
    """Words (.., W) int64 of which a share becomes [UNK], colours and shapes excepted."""
    hide = rng.random(ids.shape) < share
    hide &= (ids != tokenizer.pad) & ~noun_ids(tokenizer)[ids]
    return np.where(hide, tokenizer.unk, ids)


def insert_words(
    tokenizer: Tokenizer, ids: np.ndarray, share: float, rng: np.random.Generator
) -> np.ndarray:
    """Orders (.., W) int64; in a share of them a word of STRAY stands at a random place.

    An order that fills its row stays as it is: no word is lost.
    """
    vocabulary = tokenizer.backend.get_vocab()
    known = [vocabulary[word] for word in STRAY if word in vocabulary]
    if not known:
        return ids
    rows = ids.reshape(-1, ids.shape[-1])
    lengths = words.lengths(tokenizer, rows)
    chosen = (rng.random(len(rows)) < share) & (lengths < rows.shape[1])
    place = rng.integers(lengths + 1)[:, None]
    word = rng.choice(known, len(rows))[:, None]
    column = np.arange(rows.shape[1])
    later = np.concatenate([rows[:, :1], rows[:, :-1]], 1)  # each word one place further on
    longer = np.where(column < place, rows, np.where(column == place, word, later))
    return np.where(chosen[:, None], longer, rows).reshape(ids.shape)


def noun_ids(tokenizer: Tokenizer) -> np.ndarray:
    """Which ids are colours and shapes: (V,) bool. They are never hidden in training."""
    nouns = np.zeros(tokenizer.vocab_size, dtype=bool)
    vocabulary = tokenizer.backend.get_vocab()
    for word in stills.KINDS:
        if word in vocabulary:
            nouns[vocabulary[word]] = True
    return nouns
