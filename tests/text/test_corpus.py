"""From documents to a folder: one reading to learn from, and a rule that leaves no split empty."""

import math

import pytest

from base.tokenizer import Tokenizer
from tests.making.corpus import SEPARATOR
from text import sources
from text.corpus import Corpus, FirstPass, Preparation, learn

KEPT = Tokenizer.train(["a story and a tale"], 260)


@pytest.mark.parametrize(
    "texts, share",
    [([f"story {i}", f"tale {i}"], 0.02) for i in range(8)]
    + [([f"story {i}" for i in range(1500)], share) for share in (0.00001, 0.99999)],
)
def test_each_side_gets_a_document(tmp_path, texts, share):
    """However few documents there are, and however small or large the held-out share is."""
    (tmp_path / "in.txt").write_text(SEPARATOR.join(texts))
    about = Preparation(val_fraction=share)
    _, rule = learn(Corpus([tmp_path / "in.txt"], about, "in.txt"), KEPT)
    assert {rule.side(text) for text in texts} == {"train", "val"}


def test_the_first_reading_stops_and_knows_the_range_of_the_draws():
    texts = ["aaaa", "bbbb", "cccc", "dddd"]
    reading = FirstPass(texts, seed=3, limit=9)
    assert list(reading) == texts[:3]  # the third text crosses nine characters
    draws = [sources.draw(text, 3) for text in texts[:3]]
    assert (reading.count, reading.smallest, reading.largest) == (3, min(draws), max(draws))
    assert FirstPass([], 0, 9).smallest == math.inf


def test_a_given_tokenizer_changes_no_split(tmp_path):
    """Training a tokenizer reads the same documents, so the rule is the same."""
    (tmp_path / "in.txt").write_text(SEPARATOR.join(["one story", "another", "the last"]))
    corpus = Corpus([tmp_path / "in.txt"], Preparation(vocab_size=270), "in.txt")
    trained, rule = learn(corpus, None)
    assert learn(corpus, KEPT) == (KEPT, rule) and trained.vocab_size <= 270
