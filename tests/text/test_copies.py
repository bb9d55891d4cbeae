"""Copies: the automaton against brute force, and rates of a known case."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from text.copies import Copies, rates

few = st.lists(st.integers(0, 2), max_size=12)


def brute(text, corpus) -> list[int]:
    """The longest run that ends at each token and lies in one of the corpus' pieces."""
    held = {
        tuple(piece[i:j])
        for piece in corpus
        for i in range(len(piece))
        for j in range(i + 1, len(piece) + 1)
    }
    return [
        max((n for n in range(1, end + 1) if tuple(text[end - n : end]) in held), default=0)
        for end in range(1, len(text) + 1)
    ]


@settings(max_examples=200, deadline=None)
@given(st.lists(few, min_size=1, max_size=4), st.lists(few, max_size=4))
def test_runs_are_brute_forces(texts, corpus):
    seen = Copies(texts)
    for piece in corpus:
        seen.read(piece)
    assert [seen.runs(number).tolist() for number in range(len(texts))] == [
        brute(text, corpus) for text in texts
    ]


def test_rates():
    seen = Copies([[1, 2, 3, 4, 9, 9], [7, 7]])
    seen.read([5, 1, 2, 3, 4, 5])
    runs = [seen.runs(number) for number in (0, 1)]
    assert runs[0].tolist() == [1, 2, 3, 4, 0, 0] and not runs[1].any()
    assert rates(runs, least=4) == {
        "longest_copy_mean": 2.0,
        "longest_copy_max": 4.0,
        "copied_share": 0.5,
    }
    assert rates([np.zeros(0, dtype=np.int64)])["longest_copy_max"] == 0.0
