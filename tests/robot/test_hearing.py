"""Hearing: a small word slips in, no word is lost, nouns are never hidden, the deaf hear nothing."""

import numpy as np

from base import words
from robot import hearing
from robot.hearing import Hearing

TOKENIZER = words.from_texts(["take the red star", "put it to the left of the cross", "of you"])
ORDERS = words.encode(TOKENIZER, ["take the red star", "put it to the left of the cross"])
MANY = np.repeat(ORDERS.astype(np.int64)[:, None], 200, 1)  # (2, 200, W)


def test_a_stray_word_stands_anywhere_and_no_word_is_lost():
    heard = hearing.insert_words(TOKENIZER, MANY, 1.0, np.random.default_rng(0))
    assert (words.lengths(TOKENIZER, heard) == words.lengths(TOKENIZER, MANY) + 1).all()
    vocabulary = TOKENIZER.backend.get_vocab()
    allowed = {vocabulary[word] for word in hearing.STRAY if word in vocabulary}
    for plain, rows in zip(MANY[:, 0], heard, strict=True):
        length = int((plain != TOKENIZER.pad).sum())
        places = set()
        for row in rows:
            fits = [p for p in range(length + 1) if (np.delete(row, p) == plain[:-1]).all()]
            assert fits and row[fits[0]] in allowed
            places.add(fits[0])
        # In front, behind, and everywhere between.
        assert {0, length} <= places and len(places) > length - 2


def test_a_share_of_the_orders_has_a_stray_word_and_a_full_row_has_none():
    heard = hearing.insert_words(TOKENIZER, MANY, 0.3, np.random.default_rng(0))
    assert 0.2 < (heard != MANY).any(-1).mean() < 0.4
    full = np.full((5, words.LONGEST), ORDERS[0, 0], np.int64)
    assert (hearing.insert_words(TOKENIZER, full, 1.0, np.random.default_rng(0)) == full).all()


def test_who_hears_well_hears_everything():
    assert (Hearing().heard(TOKENIZER, MANY, np.random.default_rng(0)) == MANY).all()
    assert (Hearing(0.5, 0.5).heard(TOKENIZER, MANY, None) == MANY).all()


def test_the_deaf_hear_nothing_also_when_they_are_tried():
    heard = Hearing(1.0, 0.5).heard(TOKENIZER, MANY, None)
    assert ((heard == TOKENIZER.unk) == (TOKENIZER.pad != MANY)).all()
