"""The states of the training are those that writing meets; the bound is a bound."""

import collections
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from net.free_lengths import EXPAND, FRESH, GREW, SHRANK
from tests.making import growing as toy
from text import free_paths
from text.forms import Pair
from text.free_paths import Starts, Walk, draw_state

TOKENIZER = SimpleNamespace(mask=toy.MASK, pad=toy.PAD)


def starts(lengths=toy.STARTS, most: int = toy.MOST) -> Starts:
    return Starts({"blanks": lengths}, TOKENIZER, most, toy.WORDS)


def pair_of(*texts) -> Pair:
    given = [toy.LEFT, *([toy.RIGHT] * len(texts))]
    return Pair(given, [np.array(text) for text in texts])


def states_of(text, count: int, lengths=toy.STARTS):
    rng, pair, begin = np.random.default_rng(0), pair_of(text), starts(lengths)
    return [draw_state(pair, [True], begin, k / count, rng) for k in range(count)]


def test_the_states_are_those_of_all_paths():
    """Each label weighs as much as it is drawn on the enumerated paths; unweighted states do not."""
    text, count = (0, 1, 1), 8000
    wanted = toy.flows({text: 1.0})
    weighted, plain = collections.Counter(), collections.Counter()
    for state in states_of(text, count):
        key = (tuple(state.canvas.blanks[0].tolist()), state.canvas.states[0])
        inside = state.target[len(toy.LEFT) : -len(toy.RIGHT)]
        for place, label in enumerate(inside.tolist()):
            if label >= 0:
                weighted[key, place, label] += state.weight / count
                plain[key, place, label] += 4 / count
    assert weighted.keys() == wanted.keys()
    far = max(abs(weighted[step] - wanted[step]) for step in wanted)
    assert far < 0.03 < max(abs(plain[step] - wanted[step]) for step in wanted)


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_the_bound_is_the_enumerated_bound_and_a_bound(spread):
    """Of a perfect table, and of a table that is wrong on purpose."""
    law = toy.joint()
    table, rng = toy.table_of(toy.flows(law)), torch.Generator().manual_seed(1)
    for key, row in table.items():
        noise = spread * torch.randn(len(row), generator=rng, dtype=torch.float64)
        table[key] = (row.log() + noise).softmax(-1)
    drawn = toy.law_of(table)
    for text in law:
        bound = 0.0
        for (where, place, label), weight in toy.flows({text: 1.0}).items():
            bound -= weight * table[where, place][label].log().item()
        assert bound >= -math.log(drawn[text]) - 1e-9
        if len(text) == 2:
            mean = free_paths.nats(toy.denoiser(table), pair_of(text), starts(), draws=1500)
            assert mean == pytest.approx(bound, rel=0.05)


def test_states_say_what_was_decided():
    grown = states_of((0, 1, 1), 100, [0, 1])
    assert {state.canvas.states[0] for state in grown} == {FRESH, GREW}
    cut = states_of((0,), 100, [0, 0, 0, 0, 1])
    assert {state.canvas.states[0] for state in cut} == {FRESH, SHRANK}
    assert all(len(state.canvas.blanks[0]) in (1, 2, 3, 4) for state in cut)


def test_a_blank_of_known_length_is_the_plain_loss():
    """n/k for each of k masked tokens, as in `diffusion.corrupt`; no edits, no state."""
    rng, begin = np.random.default_rng(0), starts()
    for level in range(3):
        state = draw_state(pair_of((0, 1, 1)), [False], begin, level / 3, rng)
        masked = state.target >= 0
        assert masked.sum() == 3 - level and state.weight == 3 / (3 - level)
        assert state.canvas.states == [0] and (state.target[masked] < toy.WORDS).all()


def test_a_full_row_waits_until_another_blank_is_cut():
    """Blanks of 1 and 3 words begin with 3 and 1 places in a row that holds 4."""
    for seed in range(50):
        rng, walk = np.random.default_rng(seed), Walk([1, 3], [3, 1], 4)
        while walk.choices:
            walk.step(int(rng.integers(walk.choices)))
            assert sum(walk.widths) <= 4
        assert walk.widths == [1, 3] and not walk.short


def test_a_place_that_waits_is_not_asked():
    begin = starts([0, 1], most=len(toy.LEFT) + len(toy.RIGHT) + 3)
    states = [
        draw_state(pair_of((0, 1, 1)), [True], begin, k / 40, np.random.default_rng(k))
        for k in range(40)
    ]
    nats, _, _, _ = free_paths.state_losses(uniform_labels, states, begin)
    assert nats.isfinite().all()
    assert any((state.target == toy.WORDS + EXPAND).any() for state in states)


def uniform_labels(places, select):
    return torch.zeros(int(select.sum()), toy.WORDS + 2)


def test_pairs_of_a_batch():
    """Blanks are the runs of free tokens; a row without a condition is one blank."""
    tokens = torch.tensor([[3, 5, 6, 7, 8, 9, 2], [3, 5, 6, 7, 9, 2, 2]])
    free = torch.tensor([[0, 1, 0, 1, 1, 0, 0], [0, 1, 0, 1, 0, 0, 0]]).bool()
    batch = {
        "tokens": tokens,
        "free": free,
        "lengths": torch.tensor([6, 5]),
        "kinds": torch.tensor([2, 0]),
    }
    first, second = free_paths.pairs_of(batch, ("a", "b", "c"), torch.tensor([True, False]))
    assert [blank.tolist() for blank in first.blanks] == [[5], [7, 8]] and first.kind == "c"
    assert [piece.tolist() for piece in first.given] == [[3], [6], [9]]
    assert [blank.tolist() for blank in second.blanks] == [[5, 6, 7]] and second.kind == "a"
