"""The sampler of growing rows draws the law of the texts, in every order and from every start."""

import collections
import dataclasses

import numpy as np
import pytest
import torch

from base.config import SampleConfig
from net import growing
from net.draws import draw_tokens
from net.free_lengths import DELETE, EXPAND, FRESH, GREW, KNOWN, SHRANK, Canvas
from net.growing import ORDERS, Growing, draw_labels
from net.samplers import row_generators
from tests.making import growing as toy
from tests.making.toys import chi_square
from tests.net.test_free_lengths import BOS, MASK, PAD, canvas, random_model


def counts_of(table: dict, config: SampleConfig, starts=toy.STARTS, rows: int = 1500) -> dict:
    drawn = growing.write(
        toy.denoiser(table),
        toy.canvases(rows, starts),
        config,
        mask_id=toy.MASK,
        pad=toy.PAD,
        most=toy.MOST,
        rngs=row_generators(3, rows),
    )
    return collections.Counter(tuple(row.canvas.blanks[0].tolist()) for row in drawn)


def fit(counts: dict, law: dict) -> float:
    """p-value of the counts under the law; 0 if a text has no probability."""
    if set(counts) - set(law):
        return 0.0
    observed = torch.tensor([float(counts[text]) for text in law])
    return chi_square(observed, torch.tensor(list(law.values())))


def test_a_perfect_network_gives_the_law_whatever_the_start():
    """All paths are followed: the law is that of the texts to 1e-12.

    If [delete] removes its own place only, this holds for the start of the training alone.
    """
    law = toy.joint()
    table = toy.table_of(toy.flows(law))
    for start in ([0, 1, 0, 0, 0], [0, 0, 0, 0, 1], toy.STARTS):
        drawn = toy.law_of(table, start)
        assert max(abs(drawn[text] - law[text]) for text in law) < 1e-12
    forgets = toy.table_of(toy.flows(law, alone=True))
    same = toy.law_of(forgets, alone=True)
    assert max(abs(same[text] - law[text]) for text in law) < 1e-12
    other = toy.law_of(forgets, [0, 0, 0, 0, 1], alone=True)
    assert max(abs(other[text] - law[text]) for text in law) > 1e-3


@pytest.mark.parametrize("order", ["first_hitting", "left_to_right", "confidence"])
def test_the_sampler_draws_the_law_of_the_texts(order):
    law = toy.joint()
    table = toy.table_of(toy.flows(law))
    assert fit(counts_of(table, SampleConfig(order, 50)), law) > 1e-3
    # Several places per call, or a network that knows another law, are told apart.
    assert fit(counts_of(table, SampleConfig(order, 2)), law) < 1e-6
    other = toy.table_of(toy.flows(toy.joint(seed=1)))
    assert fit(counts_of(other, SampleConfig(order, 50)), law) < 1e-6


def test_two_stages_are_one_draw():
    """At temperature 1 the frequencies are the softmax of all labels."""
    logits = torch.tensor([[0.3, -0.4, 1.0, 0.2, -0.1]], dtype=torch.float64)
    uniform = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    label, nats = draw_labels(logits.expand(20000, 5), uniform)
    share = torch.bincount(label, minlength=5) / 20000
    torch.testing.assert_close(share.double(), logits[0].softmax(-1), atol=1e-3, rtol=0)
    torch.testing.assert_close(nats, logits[0].log_softmax(-1)[label])


@pytest.mark.parametrize("how", [{"temperature": 0.0}, {"top_p": 0.3}])
def test_lengths_keep_their_law_at_any_temperature(how):
    """[delete] is drawn with its probability, 0.4; the words are all the likeliest word."""
    logits = torch.tensor([[0.2, 0.25, 0.15, 0.0, 0.4]]).log()
    uniform = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    label, _ = draw_labels(logits.expand(1000, 5), uniform, **how)
    assert torch.bincount(label, minlength=5).tolist() == [0, 600, 0, 0, 400]
    # One draw of all labels would always delete.
    assert (draw_tokens(logits.expand(1000, 5), uniform, **how)[0] == 4).all()


def test_a_place_is_as_sure_as_the_likeliest_label_of_the_likeliest_kind():
    logits = torch.tensor([[0.2, 0.25, 0.15, 0.0, 0.4], [0.1, 0.1, 0.1, 0.3, 0.4]]).log()
    found = growing.sureness(logits, "confidence")
    torch.testing.assert_close(found.float(), torch.tensor([0.25, 0.4]))


def write(rows: list[Canvas], order: str, steps: int, temperature=1.0, seed=0, most=24):
    config = SampleConfig(order, steps, temperature=temperature)
    rngs = row_generators(seed, len(rows))
    options = {"mask_id": MASK, "pad": PAD, "most": most, "rngs": rngs, "keep_frames": True}
    return growing.write(eager_labels(), rows, config, **options)


def eager_labels():
    """A random network that edits about as often as it writes."""
    model = random_model()

    def labels(places, select):
        logits = 0.3 * model.labels(places, select)
        logits[:, -2:] += 2 + logits[:, :-2].amax(-1, keepdim=True)
        return logits

    return labels


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("steps", [1, 3, 200])
def test_writing_ends_and_keeps_what_is_given(order, steps):
    some = [canvas([MASK] * width, FRESH, [MASK] * 2, width % 2) for width in range(1, 9)]
    rows = write(some, order, steps)
    assert steps == 1 or sum(row.expansions + row.cut for row in rows) > 5
    for before, row in zip(some, rows, strict=True):
        after = row.canvas
        assert not row.is_open and len(after) <= 24 and row.calls <= steps
        assert len(row.frames) == row.calls and row.frames[-1].tolist() == after.ids().tolist()
        assert all(map(np.array_equal, before.given, after.given))
        assert all(len(blank) >= 1 for blank in after.blanks)
        assert len(before) + row.expansions - row.cut == len(after)
        if before.states[1] == KNOWN:
            assert len(after.blanks[1]) == 2 and after.states[1] == KNOWN
        for blank, step, nats in zip(after.blanks, row.step, row.log_prob, strict=True):
            assert len(blank) == len(step) == len(nats) and (nats < 0).all()
            assert (step >= 1).all() and (step <= row.calls).all() and (blank < 9).all()
    if steps == 1:
        assert all(row.expansions == row.cut == 0 for row in rows)


def test_a_row_does_not_depend_on_the_others():
    some = [canvas([MASK] * width, FRESH) for width in range(1, 7)]
    together = write(some, "first_hitting", 40)
    for number, row in enumerate(some):
        config = SampleConfig("first_hitting", 40)
        rngs = row_generators(0, 1, number)
        (alone,) = growing.write(
            eager_labels(), [row], config, mask_id=MASK, pad=PAD, most=24, rngs=rngs
        )
        assert alone.canvas.ids().tolist() == together[number].canvas.ids().tolist()
        assert alone.calls == together[number].calls


def begun(blank, state) -> Growing:
    return Growing.begin(Canvas([np.array([BOS]), np.array([1])], [np.array(blank)], [state]), MASK)


def test_labels_of_a_call_that_do_not_fit_are_dropped():
    """Words 0 to 8, so 9 expands and 10 deletes. Each label meets those before it."""
    expand, delete = 9 + EXPAND, 9 + DELETE
    row = begun([MASK] * 4, FRESH)
    row.apply([(0, 2, delete, -1.0), (0, 3, 5, -1.0), (0, 0, 7, -0.5)], 9, 24)
    assert row.canvas.blanks[0].tolist() == [7, MASK] and row.canvas.states == [SHRANK]
    assert row.cut == 2 and row.step[0].tolist() == [1, 0] and row.log_prob[0].tolist() == [-0.5, 0]
    row = begun([MASK] * 3, FRESH)
    row.apply([(0, 1, 6, -1.0), (0, 1, delete, -1.0), (0, 2, expand, -1.0)], 9, 24)
    assert row.canvas.blanks[0].tolist() == [MASK, 6, MASK, MASK] and row.expansions == 1
    row.apply([(0, 2, delete, -1.0)], 9, 24)  # what grew cannot shrink
    assert row.canvas.blanks[0].tolist() == [MASK, 6, MASK, MASK] and row.canvas.states == [GREW]
    row = begun([MASK] * 3, FRESH)
    row.apply([(0, 2, expand, -1.0)], 9, most=5)  # the row is full
    assert len(row.canvas) == 5 and row.canvas.states == [FRESH]


def test_the_canvas_of_the_caller_stays():
    before = canvas([MASK] * 3, FRESH)
    copy = dataclasses.replace(before, blanks=[blank.copy() for blank in before.blanks])
    write([before], "first_hitting", 30)
    assert all(map(np.array_equal, before.blanks, copy.blanks)) and before.states == copy.states
